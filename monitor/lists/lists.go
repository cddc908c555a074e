// Package lists reads lists of digests: which artifacts a release has. They come
// from files, or from URLs with a signature that is verified.
package lists

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Bounds of a list and of its signature.
const (
	maxList      = 16 << 20
	maxDigests   = 200_000
	maxSignature = 1 << 20
)

// Source is one list.
type Source struct {
	// Name is how reasons and incidents call it, and what a rule refers to: where it
	// comes from, and who must have signed it.
	Name string
	// File or URL is where it is; Signature where its signature is, if it has one.
	File, URL, Signature string
	// Every is how often a URL is asked.
	Every time.Duration
	// Verify checks a signature; nil: nobody has to have signed it.
	Verify func(list, signature []byte) error
	Client *http.Client
}

const (
	// lookEvery is how often a file is looked at.
	lookEvery = 5 * time.Second
	// againAfter is the wait after a URL could not be read.
	againAfter = time.Minute
)

// Lists holds what lists say now. It may be used by several goroutines.
type Lists struct {
	lists   map[string]*list
	log     *slog.Logger
	changed func()
}

type list struct {
	Source
	digests atomic.Pointer[map[string]bool]
	mu      sync.Mutex
	state   State
	seen    looks
	tried   bool // once at least
}

// looks are how a file and its signature looked when they were last read.
type looks [2]os.FileInfo

// same reports whether they have not changed since.
func (l looks) same(o looks) bool {
	for i, info := range l {
		if (info == nil) != (o[i] == nil) || info != nil && !(os.SameFile(info, o[i]) && info.Size() == o[i].Size() && info.ModTime().Equal(o[i].ModTime())) {
			return false
		}
	}
	return l[0] != nil
}

// State is how a list is.
type State struct {
	Name string
	// Read is when it was last read and verified; zero: never. Failing is since
	// when it cannot be, Err why.
	Read, Failing time.Time
	Err           error
	Digests       int
}

// New returns lists that were not read yet. changed is called after one of them
// says something new.
func New(sources []Source, log *slog.Logger, changed func()) *Lists {
	l := &Lists{lists: map[string]*list{}, log: log, changed: changed}
	for _, s := range sources {
		if l.lists[s.Name] == nil {
			l.lists[s.Name] = &list{Source: s}
		}
	}
	return l
}

// Listed returns which of some digests is on a list. One that was never read has
// none.
func (l *Lists) Listed(name string, digests []string) (string, bool) {
	one := l.lists[name]
	if one == nil {
		return "", false
	}
	known := one.digests.Load()
	if known == nil {
		return "", false
	}
	for _, d := range digests {
		if (*known)[d] {
			return d, true
		}
	}
	return "", false
}

// States returns how the lists are.
func (l *Lists) States() []State {
	var out []State
	for _, one := range l.lists {
		one.mu.Lock()
		out = append(out, one.state)
		one.mu.Unlock()
		out[len(out)-1].Name = one.Name
	}
	return out
}

// Tried reports whether every list was read, or could not be, at least once.
func (l *Lists) Tried() bool {
	for _, one := range l.lists {
		one.mu.Lock()
		tried := one.tried
		one.mu.Unlock()
		if !tried {
			return false
		}
	}
	return true
}

// Load reads every list once, at the same time.
func (l *Lists) Load(ctx context.Context) {
	var wg sync.WaitGroup
	for _, one := range l.lists {
		wg.Go(func() { l.read(ctx, one) })
	}
	wg.Wait()
}

// Run reads the lists again and again until ctx ends: files soon after they have
// changed, URLs on their schedule.
func (l *Lists) Run(ctx context.Context) {
	var wg sync.WaitGroup
	for _, one := range l.lists {
		wg.Go(func() {
			for {
				err := l.read(ctx, one)
				wait := one.Every
				switch {
				case one.File != "":
					wait = lookEvery
				case err != nil:
					wait = min(wait, againAfter)
				}
				timer := time.NewTimer(wait)
				select {
				case <-timer.C:
				case <-ctx.Done():
					timer.Stop()
					return
				}
			}
		})
	}
	wg.Wait()
}

// read reads a list, and keeps what it said before if that fails.
func (l *Lists) read(ctx context.Context, one *list) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	fresh, same, err := one.fetch(ctx)
	if ctx.Err() != nil && errors.Is(ctx.Err(), context.Canceled) {
		return ctx.Err()
	}
	now := time.Now()
	one.mu.Lock()
	before := one.state
	one.state.Err, one.tried = err, true
	switch {
	case err != nil && before.Err == nil:
		one.state.Failing = now
	case err == nil:
		one.state.Failing, one.state.Read = time.Time{}, now
		if !same {
			one.state.Digests = len(fresh)
		}
	}
	one.mu.Unlock()
	if err != nil {
		if before.Err == nil {
			l.log.Warn("a list of digests cannot be used; what it said last stays in force", "list", one.Name, "error", err)
			l.changed()
		}
		return err
	}
	if !same {
		one.digests.Store(&fresh)
		l.log.Info("a list of digests was read", "list", one.Name, "digests", len(fresh))
	}
	if !same || before.Err != nil {
		l.changed()
	}
	return nil
}

// fetch reads and verifies a list; same says that a file, and the one with its
// signature, are as they were when they were good last.
func (one *list) fetch(ctx context.Context) (digests map[string]bool, same bool, err error) {
	var data []byte
	var now looks
	if one.File != "" {
		if now, err = one.look(); err != nil {
			return nil, false, err
		}
		if now.same(one.seen) {
			return nil, true, nil
		}
		data, err = readFile(one.File, maxList)
	} else {
		data, err = one.get(ctx, one.URL, maxList)
	}
	if err != nil {
		return nil, false, err
	}
	if err := one.check(ctx, data); err != nil {
		return nil, false, err
	}
	if digests, err = Parse(data); err != nil {
		return nil, false, err
	}
	one.seen = now
	return digests, false, nil
}

// look looks at a file, and at that with its signature.
func (one *list) look() (now looks, err error) {
	if now[0], err = os.Stat(one.File); err != nil {
		return now, err
	}
	if one.Verify != nil && !strings.Contains(one.Signature, "://") {
		now[1], err = os.Stat(one.Signature)
	}
	return now, err
}

// check verifies the signature of a list that somebody must have signed.
func (one *list) check(ctx context.Context, data []byte) (err error) {
	if one.Verify == nil {
		return nil
	}
	var signature []byte
	if strings.Contains(one.Signature, "://") {
		signature, err = one.get(ctx, one.Signature, maxSignature)
	} else {
		signature, err = readFile(one.Signature, maxSignature)
	}
	if err != nil {
		return fmt.Errorf("its signature: %w", err)
	}
	if err := one.Verify(data, signature); err != nil {
		return fmt.Errorf("its signature does not hold: %w", err)
	}
	return nil
}

func readFile(name string, most int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return bounded(f, most)
}

func bounded(r io.Reader, most int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, most+1))
	if err == nil && int64(len(data)) > most {
		return nil, fmt.Errorf("is larger than %d bytes", most)
	}
	return data, err
}

func (one *list) get(ctx context.Context, url string, most int64) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", "sigwarden")
	resp, err := one.Client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s was answered with %s", url, resp.Status)
	}
	return bounded(resp.Body, most)
}

// hashLengths gives the names of hashes by their hex digits.
var hashLengths = map[int]string{40: "sha1", 64: "sha256", 96: "sha384", 128: "sha512"}

// Parse reads a list: one digest a line, as ALGORITHM:HEX or bare hex, or lines as
// sha256sum and shasum print them, in either of their forms. Empty lines and those
// that begin with # are passed over; anything else makes the whole list unusable.
func Parse(data []byte) (map[string]bool, error) {
	out := map[string]bool{}
	lines := bufio.NewScanner(bytes.NewReader(data))
	lines.Buffer(nil, 1<<20)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(strings.TrimPrefix(lines.Text(), "\ufeff"))
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		digest, ok := parseLine(line)
		if !ok {
			return nil, fmt.Errorf("line %d, %.80q, holds no digest: want ALGORITHM:HEX, or a line as sha256sum prints it", n, line)
		}
		if len(out) == maxDigests && !out[digest] {
			return nil, fmt.Errorf("has more than %d digests", maxDigests)
		}
		out[digest] = true
	}
	return out, lines.Err()
}

func parseLine(line string) (string, bool) {
	line = strings.TrimPrefix(line, `\`) // sha256sum: the file's name is escaped
	word, _, _ := strings.Cut(line, " ")
	algorithm := ""
	if name, rest, ok := strings.Cut(word, ":"); ok {
		algorithm, word = strings.ToLower(name), rest
	} else if at := strings.LastIndex(line, ") = "); at > 0 && strings.Contains(line[:at], " (") { // BSD
		algorithm, word = strings.ReplaceAll(strings.ToLower(word), "-", ""), line[at+4:]
	}
	word = strings.ToLower(word)
	name := hashLengths[len(word)]
	if _, err := hex.DecodeString(word); err != nil || name == "" || algorithm != "" && algorithm != name {
		return "", false
	}
	return name + ":" + word, true
}
