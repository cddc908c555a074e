package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/sigwarden/sigwarden/checkpoint/witness"
	"github.com/sigwarden/sigwarden/monitor/config"
	"github.com/sigwarden/sigwarden/notify"
)

// What the witness does for logs that do not ask: it co-signs what they have published,
// and brings that to others.

const (
	// feedFor bounds what is done for one log at one place.
	feedFor = 15 * time.Second
	// feedAgain is when a checkpoint that is where it is to be is co-signed anew: readers
	// look at the age of cosignatures.
	feedAgain = 45 * time.Minute
)

// peer is another witness that is asked to co-sign.
type peer struct {
	config.Peer
	key    *witness.Verifier
	client *http.Client
	seen   map[string]uint64 // what it has seen of logs, by origin, as far as is known
}

// feeder brings what logs have published to where it is to be.
type feeder struct {
	*cosigning
	distributors map[string]*http.Client // by address
	peers        []*peer
	done         map[string]brought // what was brought everywhere, by origin
	failing      map[string]bool    // places, to say so once
}

// brought is a note, and when it was co-signed.
type brought struct {
	note string
	at   time.Time
}

func (w *cosigning) newFeeder() (*feeder, error) {
	f := &feeder{cosigning: w, distributors: map[string]*http.Client{}, done: map[string]brought{}, failing: map[string]bool{}}
	cfg := w.setup.cfg.Witness
	for _, address := range cfg.Distributors {
		f.distributors[strings.TrimRight(address, "/")] = notify.HTTPClient(nil)
	}
	for _, p := range cfg.Peers {
		key, err := witness.ParseVerifier(p.Key)
		if err != nil {
			return nil, usage(&config.Error{Issues: []config.Issue{w.setup.cfg.At(p.Path+".key", err.Error())}})
		}
		roots, err := certPool(p.TLSCA)
		if err != nil {
			return nil, fmt.Errorf("tls_ca: %w", err)
		}
		f.peers = append(f.peers, &peer{p, key, notify.HTTPClient(roots), map[string]uint64{}})
	}
	return f, nil
}

// run feeds every log again and again, until ctx ends.
func (f *feeder) run(ctx context.Context) {
	for pause(ctx, f.setup.cfg.Witness.FeedEvery) {
		for _, l := range f.engine.Followed() {
			if !f.chosen(l.Name) {
				continue
			}
			f.feed(ctx, l.Name, l.Log.Origin())
		}
	}
}

// feed co-signs the newest verified checkpoint of a log, and brings it to others.
func (f *feeder) feed(ctx context.Context, name, origin string) {
	state, err := f.promises.State(ctx, origin)
	if err != nil || state.Doubt != "" {
		return // the log of the witness has said why
	}
	asking, cancel := context.WithTimeout(ctx, feedFor)
	defer cancel()
	raw, proof, err := f.engine.Newest(asking, origin, state.Size)
	if err != nil || raw == nil {
		f.say(name, err)
		return
	}
	if last := f.done[origin]; last.note == string(raw) && time.Since(last.at) < feedAgain {
		return
	}
	at := time.Now()
	a := f.witness.Add(ctx, (&witness.Request{Old: state.Size, Proof: proof, Note: raw}).Format())
	if a.Status != http.StatusOK {
		f.say(name, fmt.Errorf("not co-signed: %d %s", a.Status, strings.TrimSpace(a.Body)))
		return
	}
	f.say(name, nil)
	all := true
	for address, client := range f.distributors {
		for line := range strings.Lines(a.Body) {
			turn, cancel := context.WithTimeout(ctx, feedFor)
			err := witness.Distribute(turn, client, address, distributorID(origin), strings.Fields(line)[1], raw, line)
			cancel()
			f.say(address, err)
			all = all && err == nil
		}
	}
	for _, p := range f.peers {
		turn, cancel := context.WithTimeout(ctx, feedFor)
		err := f.submit(turn, p, origin, raw)
		cancel()
		f.say(p.URL, err)
		all = all && err == nil
	}
	if all {
		f.done[origin] = brought{string(raw), at}
	}
}

// submit asks another witness to co-sign a checkpoint.
func (f *feeder) submit(ctx context.Context, p *peer, origin string, raw []byte) error {
	log := f.logOf(origin)
	if log == nil {
		return nil
	}
	c, err := log.Open(raw)
	if err != nil {
		return err
	}
	for range 3 {
		old := p.seen[origin]
		if old > c.Size() {
			delete(p.seen, origin) // it is further on than we are, or says so
			return nil
		}
		proof, err := f.engine.Proof(ctx, origin, old, c)
		if err != nil {
			return err
		}
		_, err = witness.Submit(ctx, p.client, strings.TrimRight(p.URL, "/")+"/add-checkpoint", witness.Request{Old: old, Proof: proof, Note: raw}, p.key)
		var stale *witness.StaleError
		if !errors.As(err, &stale) {
			if err == nil {
				p.seen[origin] = c.Size()
			}
			return err
		}
		if stale.Size == old {
			return err // that is what it was asked with
		}
		p.seen[origin] = stale.Size
	}
	return errors.New("it has seen another size at every try")
}

// distributorID is a distributor's name for a log (wire-formats 5.7): not that of a
// witness.
func distributorID(origin string) string {
	sum := sha256.Sum256([]byte("o:" + origin))
	return hex.EncodeToString(sum[:])
}

// say says once that something does not work, and once that it does again.
func (f *feeder) say(what string, err error) {
	if (err != nil) == f.failing[what] {
		return
	}
	f.failing[what] = err != nil
	if err != nil {
		f.log.Warn("what was co-signed is not where it is to be; that is tried again", "what", what, "error", err)
		return
	}
	f.log.Info("what was co-signed is where it is to be again", "what", what)
}
