package main

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/sigwarden/sigwarden/checkpoint"
	"github.com/sigwarden/sigwarden/checkpoint/witness"
	"github.com/sigwarden/sigwarden/monitor"
	"github.com/sigwarden/sigwarden/monitor/config"
	"github.com/sigwarden/sigwarden/monitor/rekor/locallog"
)

// TestClocks: the clock is compared with the median of those of the logs' servers.
func TestClocks(t *testing.T) {
	for _, c := range []struct {
		name  string
		ahead []time.Duration // of the servers
		level string
	}{
		{"right", []time.Duration{0, 0, time.Second}, levelOK},
		{"one server is wrong", []time.Duration{0, 0, 24 * time.Hour}, levelOK},
		{"slow", []time.Duration{2 * time.Minute}, levelWarning},
		{"fast", []time.Duration{-2 * time.Minute, -2 * time.Minute, 0}, levelWarning},
		{"far off", []time.Duration{-time.Hour}, levelBroken},
		{"nobody tells", nil, levelOK},
	} {
		s := &setup{cfg: &config.Config{}}
		for _, ahead := range c.ahead {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Date", time.Now().Add(ahead).UTC().Format(http.TimeFormat))
			}))
			defer server.Close()
			s.cfg.Logs = append(s.cfg.Logs, config.Log{URL: server.URL})
		}
		e := &examination{setup: s}
		e.clock(context.Background())
		if len(e.list) != 1 || e.list[0].What != "clock" || e.list[0].Level != c.level || (c.level == levelOK) != (e.list[0].Do == "") || c.level != levelOK && !strings.Contains(e.list[0].Do, "NTP") {
			t.Errorf("%s: %+v", c.name, e.list)
		}
	}
}

// TestClockOfWitnesses: two witnesses that signed in the future are believed, one is not.
func TestClockOfWitnesses(t *testing.T) {
	log, err := locallog.New("log.example")
	if err != nil {
		t.Fatal(err)
	}
	log.Append([]byte("x"))
	note, err := log.Checkpoint()
	if err != nil {
		t.Fatal(err)
	}
	opener, err := checkpoint.ForOrigin(log.Origin(), log.PublicKeyPEM())
	if err != nil {
		t.Fatal(err)
	}
	c, err := opener.Open(note)
	if err != nil {
		t.Fatal(err)
	}
	policy := ""
	var cosigners []*witness.Cosigner
	for _, name := range []string{"one", "two", "three"} {
		_, w, err := witness.GenerateKey("witness.example/"+name, witness.Ed25519)
		if err != nil {
			t.Fatal(err)
		}
		policy += "witness " + name + " " + w.String() + "\n"
		cosigners = append(cosigners, w)
	}
	policy += "quorum none\n"
	// A second key of the first one.
	_, w, err := witness.GenerateKey("witness.example/one", witness.MLDSA44)
	if err != nil {
		t.Fatal(err)
	}
	policy = strings.Replace(policy, "quorum", "witness again "+w.String()+"\nquorum", 1)
	cosigners = append(cosigners, w)
	for _, tc := range []struct {
		name   string
		ahead  []time.Duration
		broken bool
	}{
		{"right", []time.Duration{0, -time.Hour, 10 * time.Second, 0}, false},
		{"one of the future", []time.Duration{0, time.Hour, -time.Minute, 0}, false},
		{"two of the future", []time.Duration{2 * time.Hour, time.Hour, -time.Minute, 0}, true},
		{"two keys of one", []time.Duration{2 * time.Hour, 0, -time.Minute, 2 * time.Hour}, false},
	} {
		head := string(note)
		for i, w := range cosigners {
			line, err := w.Cosign(t.Context(), c, time.Now().Add(tc.ahead[i]))
			if err != nil {
				t.Fatal(err)
			}
			head += line
		}
		e := &examination{setup: &setup{cfg: &config.Config{Logs: []config.Log{{Policy: &config.LogPolicy{Text: []byte(policy)}}}}}}
		e.cosigned(map[string]monitor.State{"log.example": {Head: head}})
		if broken := len(e.list) == 1 && e.list[0].Level == levelBroken && strings.Contains(e.list[0].Found, "slow: 2 witnesses have signed"); broken != tc.broken || len(e.list) > 1 || !broken && len(e.list) > 0 {
			t.Errorf("%s: %+v", tc.name, e.list)
		}
	}
}
