package checkpoint

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"

	"golang.org/x/mod/sumdb/note"
)

// servings are the ways in which a log can answer for tiles while it shows a
// checkpoint: with those of that checkpoint's tree, with those of the tree we
// know, with any mixture, or not at all.
func servings(rng *rand.Rand, theirs, ours *simLog) map[string]TileReader {
	return map[string]TileReader{
		"their tiles": theirs.tile,
		"our tiles":   ours.tile,
		"no tiles":    func(uint, uint64, int) ([]byte, error) { return nil, errNotServed },
		"a mixture": func(level uint, index uint64, width int) ([]byte, error) {
			switch rng.IntN(5) {
			case 0:
				return nil, errNotServed
			case 1:
				return ours.tile(level, index, width)
			}
			return theirs.tile(level, index, width)
		},
	}
}

// around returns the sizes next to every power of two up to max.
func around(max uint64) []uint64 {
	var sizes []uint64
	seen := map[uint64]bool{}
	for p := uint64(1); p <= max; p *= 2 {
		for _, s := range []uint64{p - 1, p, p + 1, p + p/2} {
			if s > 0 && s <= max && !seen[s] {
				seen[s] = true
				sizes = append(sizes, s)
			}
		}
	}
	return sizes
}

// remembering is a verifier that checks each signature once: the matrix opens
// the same few notes a hundred thousand times.
type remembering struct {
	note.Verifier
	seen map[string]bool
}

func (r remembering) Verify(msg, sig []byte) bool {
	key := string(msg) + string(sig)
	if _, ok := r.seen[key]; !ok {
		r.seen[key] = r.Verifier.Verify(msg, sig)
	}
	return r.seen[key]
}

type matrix struct {
	t      *testing.T
	log    *Log
	other  *Log
	honest *simLog
	rng    *rand.Rand
	judged map[string]int
}

func newMatrix(t *testing.T, size uint64) *matrix {
	signer, verifier := newSigner(t, "log.example/matrix")
	_, stranger := newSigner(t, "log.example/matrix")
	l, err := NewLog(verifier.Name(), remembering{verifier, map[string]bool{}})
	if err != nil {
		t.Fatal(err)
	}
	other, _ := NewLog(verifier.Name(), stranger)
	return &matrix{t: t, log: l, other: other, honest: newSim(signer, simLeaves(size, size, false)), rng: rand.New(rand.NewPCG(1, 2)), judged: map[string]int{}}
}

// readable reports whether a monitor can compute its own root of size k with
// no help from the log.
func readable(k, start, scanned, head uint64) bool {
	if k == head || k == scanned {
		return true
	}
	if k > scanned || k < start {
		return false
	}
	oldest := uint64(0)
	if last := scanned / 256; last > KeptLeafTiles {
		oldest = last - KeptLeafTiles
	}
	return start == 0 && (k%256 == 0 || k/256 >= oldest)
}

// check compares one checkpoint of a log that forked at forkAt (or not, if
// that is not below both sizes) in one way of serving, and holds the verdict
// against what a verdict may be at all.
func (m *matrix) check(known Known, start uint64, next Checkpoint, serving string, served TileReader, forked bool, forkAt uint64) {
	m.t.Helper()
	head, scanned := known.Head.size, known.Scanned.size
	where := fmt.Sprintf("start %d scanned %d head %d, shown %d, forked %v at %d, %s", start, scanned, head, next.size, forked, forkAt, serving)
	step, archive, err := known.Compare(next, served, nil)
	var divergence *DivergenceError
	switch {
	case errors.As(err, &divergence):
		m.judged["diverged "+string(divergence.Evidence.Shape)]++
		if !forked {
			m.t.Fatalf("%s: an honest log was accused: %v", where, err)
		}
		m.evidence(where, divergence.Evidence)
		return
	case err == nil && forked:
		m.t.Fatalf("%s: a fork was accepted", where)
	case errors.Is(err, ErrOlder) && forked:
		m.t.Fatalf("%s: a fork was taken for an older checkpoint", where)
	case errors.Is(err, ErrOlder) && next.size >= head, errors.Is(err, ErrPending) && next.size >= head:
		m.t.Fatalf("%s: verdict of a smaller tree: %v", where, err)
	case errors.Is(err, ErrUnproven) && serving == "their tiles":
		m.t.Fatalf("%s: the log served true tiles of what it showed, yet: %v", where, err)
	case err == nil:
		m.judged["accepted"]++
		// The step must be good for the next comparison.
		after := Known{Head: next, Peaks: step.Peaks, Scanned: known.Scanned, Link: step.Link, Own: known.Own}
		if _, err := after.Tree(nil); err != nil {
			m.t.Fatalf("%s: step does not hold together: %v", where, err)
		}
	default:
		for _, sentinel := range []error{ErrOlder, ErrPending, ErrUnproven, errNotServed} {
			if errors.Is(err, sentinel) {
				m.judged[sentinel.Error()]++
				break
			}
		}
	}
	switch {
	case next.size == head && forked:
		m.t.Fatalf("%s: equal size and another root: %v", where, err)
	case next.size > head && serving == "their tiles" && forked:
		m.t.Fatalf("%s: the fork is there to be shown, yet: %v", where, err)
	case next.size > head && serving == "their tiles" && err != nil:
		m.t.Fatalf("%s: %v", where, err)
	case next.size > head && serving == "no tiles" && !errors.Is(err, errNotServed):
		m.t.Fatalf("%s: no tiles at all: %v", where, err)
	case next.size < head && !forked && (serving != "no tiles" && serving != "a mixture" || readable(next.size, start, scanned, head)) && !errors.Is(err, ErrOlder):
		m.t.Fatalf("%s: an honest older checkpoint could have been proven: %v", where, err)
	case next.size < head && forked && (serving == "our tiles" || readable(next.size, start, scanned, head)):
		m.t.Fatalf("%s: the fork could have been shown: %v", where, err)
	case next.size < head && forked && serving == "their tiles" && start == 0 && forkAt < min(next.size, scanned)&^255:
		m.t.Fatalf("%s: a node of 256 leaves that was read differs, yet: %v", where, err)
	}
	if errors.Is(err, ErrPending) {
		m.judgeAgain(where, known, next, archive, forked)
	}
}

// judgeAgain judges an archived checkpoint once the log serves the verified
// tree again: then nothing stays pending.
func (m *matrix) judgeAgain(where string, known Known, next Checkpoint, archive []Tile, forked bool) {
	m.t.Helper()
	kept := ownStore{}
	kept.put(archive)
	archived := func(level uint, index uint64, width int) ([]byte, error) {
		var raw []byte
		for _, h := range kept[tileID{level, index}] {
			raw = append(raw, h[:]...)
		}
		if raw == nil {
			return nil, errNotServed
		}
		return raw, nil
	}
	_, _, err := known.Compare(next, m.honest.tile, archived)
	var divergence *DivergenceError
	switch {
	case forked && !errors.As(err, &divergence):
		m.t.Fatalf("%s: judged again with the missing tiles: %v", where, err)
	case !forked && !errors.Is(err, ErrOlder):
		m.t.Fatalf("%s: honest, judged again with the missing tiles: %v", where, err)
	case forked:
		m.evidence(where, divergence.Evidence)
	}
	m.judged["judged again"]++
}

func (m *matrix) evidence(where string, d Divergence) {
	m.t.Helper()
	data, err := json.Marshal(d)
	if err != nil {
		m.t.Fatal(err)
	}
	back, err := ParseDivergence(data)
	if err != nil {
		m.t.Fatalf("%s: %v", where, err)
	}
	if err := back.Verify(m.log); err != nil {
		m.t.Fatalf("%s: evidence (%s) does not verify: %v", where, d.Shape, err)
	}
	if m.judged["diverged "+string(d.Shape)]%50 != 1 {
		return
	}
	if err := back.Verify(m.other); err == nil {
		m.t.Fatalf("%s: evidence verifies with a key that signed nothing", where)
	}
}

// TestCompareMatrix shows checkpoints of every size around powers of two, of
// the honest log and of logs that forked at every place, to monitors that are
// caught up, catching up, or began in the middle. SIGWARDEN_MATRIX=full judges
// all of them (a minute), else a part is drawn: 1 in 4, or 1 in 30 with -short.
func TestCompareMatrix(t *testing.T) {
	one := 4
	if testing.Short() {
		one = 30
	}
	if os.Getenv("SIGWARDEN_MATRIX") == "full" {
		one = 1
	}
	const max = 2*256 + 40
	m := newMatrix(t, max)
	sizes := around(max)
	places := append(around(max), 0)
	checkpoints := make(map[uint64]Checkpoint)
	for _, n := range sizes {
		checkpoints[n] = m.honest.checkpoint(t, m.log, n)
	}
	var monitors []Known
	var starts []uint64
	for i, head := range sizes {
		for _, scanned := range []uint64{head, head / 2, sizes[m.rng.IntN(i+1)]} {
			for _, start := range []uint64{0, scanned} {
				monitors = append(monitors, m.honest.monitor(t, m.log, start, scanned, head))
				starts = append(starts, start)
			}
		}
	}
	for i, known := range monitors {
		for _, n := range sizes {
			for name, served := range servings(m.rng, m.honest, m.honest) {
				m.check(known, starts[i], checkpoints[n], name, served, false, 0)
			}
		}
	}
	for _, place := range places {
		for _, all := range []bool{true, false} {
			fork := newSim(m.honest.signer, simLeaves(max, place, all))
			for _, n := range sizes {
				if n <= place {
					continue
				}
				next := fork.checkpoint(t, m.log, n)
				for i, known := range monitors {
					if known.Head.size <= place || m.rng.IntN(one) != 0 {
						continue // both histories are one so far, or not drawn
					}
					for name, served := range servings(m.rng, fork, m.honest) {
						m.check(known, starts[i], next, name, served, true, place)
					}
				}
			}
		}
	}
	for _, want := range []string{"accepted", "diverged equal-size", "diverged prefix", "diverged node", "judged again", ErrOlder.Error(), ErrPending.Error(), ErrUnproven.Error(), errNotServed.Error()} {
		if m.judged[want] == 0 {
			t.Errorf("the matrix never came to the verdict %q: it shows too little", want)
		}
	}
	t.Logf("verdicts: %v", m.judged)
}

// TestCompareLarge does the same, at random, where leaf tiles were pruned and
// the tree has three levels of tiles.
func TestCompareLarge(t *testing.T) {
	const max = 2*65536 + 3*256 + 77
	m := newMatrix(t, max)
	rounds := 40
	if testing.Short() {
		rounds = 8
	}
	size := func() uint64 {
		p := uint64(1) << (8 + m.rng.IntN(10))
		return min(max, p-40+m.rng.Uint64N(80))
	}
	for range rounds {
		head := size()
		scanned := head
		if m.rng.IntN(3) == 0 {
			scanned = m.rng.Uint64N(head + 1)
		}
		start := uint64(0)
		if m.rng.IntN(3) == 0 {
			start = m.rng.Uint64N(scanned + 1)
		}
		known := m.honest.monitor(t, m.log, start, scanned, head)
		for range 4 {
			n := size()
			next := m.honest.checkpoint(t, m.log, n)
			for name, served := range servings(m.rng, m.honest, m.honest) {
				m.check(known, start, next, name, served, false, 0)
			}
			place := m.rng.Uint64N(min(n, head))
			fork := newSim(m.honest.signer, simLeaves(n, place, m.rng.IntN(2) == 0))
			next = fork.checkpoint(t, m.log, n)
			for name, served := range servings(m.rng, fork, m.honest) {
				m.check(known, start, next, name, served, true, place)
			}
		}
	}
	t.Logf("verdicts: %v", m.judged)
}

// TestOwnTilesFault: a store that cannot be read is our fault, and says
// nothing about the log.
func TestOwnTilesFault(t *testing.T) {
	m := newMatrix(t, 600)
	fork := newSim(m.honest.signer, simLeaves(600, 3, true))
	known := m.honest.monitor(t, m.log, 0, 600, 600)
	broken := errors.New("disk gone")
	known.Own = func(uint, uint64) ([]Hash, error) { return nil, broken }
	for _, next := range []Checkpoint{m.honest.checkpoint(t, m.log, 300), fork.checkpoint(t, m.log, 300)} {
		if _, _, err := known.Compare(next, nil, nil); !errors.Is(err, broken) || errors.Is(err, ErrPending) {
			t.Errorf("with an unreadable store: %v", err)
		}
	}
}
