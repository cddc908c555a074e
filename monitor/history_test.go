package monitor_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sigwarden/sigwarden/monitor"
	"github.com/sigwarden/sigwarden/monitor/rekor/locallog"
	"github.com/sigwarden/sigwarden/monitor/store"
	"github.com/sigwarden/sigwarden/watchlist"
)

// follow runs the engine until something is so.
func (r *rig) follow(what string, ok func() bool) {
	r.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.engine.Run(ctx) }()
	defer func() { cancel(); <-done }()
	for stop := time.Now().Add(30 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(stop) {
			r.t.Fatalf("%s: not so; %+v, coverage %s", what, r.state(), r.coverage())
		}
	}
}

// left is how many entries of history are still to be read.
func left(s monitor.State) (n uint64) {
	for _, part := range s.Backlog {
		n += part.To - part.From
	}
	return n
}

func (r *rig) allRead(size uint64) func() bool {
	return func() bool {
		s := r.state()
		return s.HeadSize == size && s.Scanned == size && len(s.Backlog) == 0 && r.coverage() == fmt.Sprintf("[0,%d)", size)
	}
}

// TestNewEntriesComeFirst: all of a log is asked for, and it grows meanwhile.
// What is new is read before the history that it had.
func TestNewEntriesComeFirst(t *testing.T) {
	r := newRig(t)
	r.cfg.Schedule, r.cfg.Parallel, r.opts.LeapAfter = every(10*time.Millisecond), 1, 256
	old := r.sign(r.log, unexpectedEvent())
	r.fill(r.log, 20*256)
	size := r.log.Size()
	var mu sync.Mutex
	var read []uint64
	var fresh uint64
	r.through(&source{leaves: func(from uint64) error {
		mu.Lock()
		defer mu.Unlock()
		r.clock.move(time.Minute) // each bundle takes longer than the time between polls
		read = append(read, from/256*256)
		if len(read) == 2 {
			fresh = r.sign(r.log, unexpectedEvent())
		}
		return nil
	}})
	r.follow("all is read", r.allRead(size+1))
	if got := r.verdicts(); got != fmt.Sprintf("%d:unexpected %d:unexpected", old, fresh) {
		t.Errorf("findings %s", got)
	}
	mu.Lock()
	defer mu.Unlock()
	at := -1
	for i, from := range read {
		if from == fresh/256*256 {
			at = i
			break
		}
	}
	if at < 2 || at > 6 || len(read) < 20 {
		t.Errorf("bundles were read in the order %v: the new one at place %d", read, at)
	}
	r.wantIncidents("")
	r.audit()
}

// TestLeapFaults: no fault of the store on the way through a backlog loses an
// entry or tells anybody twice.
func TestLeapFaults(t *testing.T) {
	for _, persisted := range []bool{false, true} {
		for _, nth := range sample(1, 2, 3, 4, 5, 6, 7, 8, 9) {
			r := newRig(t)
			a := r.sign(r.log, unexpectedEvent())
			r.fill(r.log, 1000)
			b := r.sign(r.log, unexpectedEvent())
			r.fill(r.log, 200)
			faulty := &faultyStore{Store: r.store, nth: nth, persisted: persisted}
			r.opts.Store, r.opts.CommitEvery, r.opts.LeapAfter = faulty, 256, 100
			r.cfg.Schedule = every(5 * time.Millisecond)
			r.restart()
			r.follow("all is read", r.allRead(1202))
			if got := r.verdicts(); got != fmt.Sprintf("%d:unexpected %d:unexpected", a, b) {
				t.Errorf("fault at commit %d (persisted %v): %s", nth, persisted, got)
			}
			if s := r.state(); s.Entries != 1202 {
				t.Errorf("fault at commit %d (persisted %v): %d entries counted", nth, persisted, s.Entries)
			}
			pending, err := r.store.Channels(context.Background(), []string{"chat", "mail"})
			if err != nil || pending[0].Pending != 2 || pending[1].Pending != 2 {
				t.Errorf("fault at commit %d (persisted %v): %+v deliveries, %v", nth, persisted, pending, err)
			}
			r.wantIncidents("")
			r.audit()
		}
	}
}

// TestHistoryIsResumed: a process that ends amid the backlog is followed by one
// that reads the rest, also with `run --once`; and the log can be forked then.
func TestHistoryIsResumed(t *testing.T) {
	r := newRig(t)
	old := r.sign(r.log, unexpectedEvent())
	r.fill(r.log, 2000)
	r.cfg.Schedule, r.cfg.Parallel, r.opts.LeapAfter, r.opts.CommitEvery = every(5*time.Millisecond), 1, 100, 256
	blocked := errors.New("500")
	s := r.through(&source{leaves: func(from uint64) error {
		if from >= 1024 {
			return blocked
		}
		return nil
	}})
	r.follow("a part is read", func() bool { return r.coverage() == "[0,1024)" })
	if st := r.state(); st.Scanned != 2001 || fmt.Sprint(st.Backlog) != "[{1024 2001}]" {
		t.Fatalf("scanned %d, backlog %v", st.Scanned, st.Backlog)
	}
	status, err := r.engine.Status(context.Background(), r.store, nil)
	if l := status.Logs[0]; err != nil || l.Lag != 977 || fmt.Sprint(l.Backlog) != "[{1024 2001}]" || l.State == "ok" {
		t.Errorf("status %+v, %v", l, err)
	}
	if missing, err := r.engine.Uncovered(context.Background(), r.store); err != nil || len(missing) != 0 {
		t.Errorf("history that is read by itself is told to be scanned: %v, %v", missing, err)
	}
	s.leaves = nil
	r.restart()
	r.mustPass()
	if !r.allRead(2001)() || r.verdicts() != fmt.Sprintf("%d:unexpected", old) {
		t.Errorf("coverage %s, findings %s", r.coverage(), r.verdicts())
	}
	r.audit()
	fork, err := r.log.Fork(500)
	if err != nil {
		t.Fatal(err)
	}
	r.sign(fork, expectedEvent()) // the others are the same in both
	r.fill(fork, 3000)
	r.server.Show(fork, nil)
	r.once()
	r.wantIncidents("fork:integrity:open")
}

// TestHistoryGoesPastWhatIsWithheld: a bundle of the backlog that is never
// served stops neither the rest of it nor new entries.
func TestHistoryGoesPastWhatIsWithheld(t *testing.T) {
	for _, failure := range []error{refused{}, errors.New("500")} {
		r := newRig(t)
		r.fill(r.log, 1000)
		r.cfg.Schedule, r.cfg.Parallel, r.opts.LeapAfter, r.opts.CommitEvery = every(5*time.Millisecond), 1, 100, 256
		s := r.through(&source{leaves: func(from uint64) error {
			if from/256 == 1 {
				return failure
			}
			return nil
		}})
		r.follow("the rest is read", func() bool { return r.coverage() == "[0,1000)-[256,512)entry-withheld" })
		r.fill(r.log, 10)
		r.follow("new entries are read", func() bool { return r.coverage() == "[0,1010)-[256,512)entry-withheld" })
		s.leaves = nil
		r.follow("the gap is filled", r.allRead(1010))
		r.audit()
	}
}

// TestHistoryThatOnlyGrows: a log that grows faster than it can be read is told
// of, and one whose history takes long is not.
func TestHistoryThatOnlyGrows(t *testing.T) {
	for _, growth := range []int{0, 600} {
		r := newRig(t)
		r.fill(r.log, 5000)
		r.cfg.Schedule, r.cfg.Parallel, r.opts.LeapAfter, r.opts.CommitEvery = every(5*time.Millisecond), 1, 200, 256
		polls := 0
		r.through(&source{
			checkpoint: func() {
				if polls++; polls > 1 {
					r.fill(r.log, growth)
				}
				r.clock.move(time.Minute)
			},
			leaves: func(uint64) error { r.clock.move(time.Minute); return nil },
		})
		if growth == 0 {
			r.follow("all is read", r.allRead(5000))
			r.wantIncidents("")
			continue
		}
		r.follow("the log is told to be too fast", func() bool { return strings.Contains(r.incidents(), "lagging:operational:open") })
		list, err := r.store.Incidents(context.Background(), store.Filter{})
		if err != nil || len(list) != 1 || !strings.Contains(list[0].Summary, "it will never catch up") {
			t.Errorf("%+v, %v", list, err)
		}
	}
}

// TestStalledHistory: history that does not come on any more is told of within the
// hour, however well it went before; and the time in which nobody was reading says
// nothing.
func TestStalledHistory(t *testing.T) {
	r := newRig(t)
	const history, quick = 200 * 256, 150 * 256
	r.fill(r.log, history)
	r.cfg.Schedule, r.cfg.Parallel, r.opts.LeapAfter, r.opts.CommitEvery = every(5*time.Millisecond), 1, 200, 256
	var fast atomic.Bool // the log
	r.through(&source{
		checkpoint: func() {
			r.clock.move(time.Minute)
			if fast.Load() {
				r.fill(r.log, 1000)
			}
		},
		leaves: func(from uint64) error { r.clock.move(10 * time.Second); return nil },
	})
	r.follow("most is read", func() bool { return left(r.state()) < history-quick })
	r.wantIncidents("")
	r.clock.move(30 * 24 * time.Hour)
	r.restart()
	fast.Store(true)
	began := r.clock.now()
	r.follow("it is told", func() bool { return strings.Contains(r.incidents(), "lagging:operational:open") })
	list, err := r.store.Incidents(context.Background(), store.Filter{Kind: "lagging"})
	if err != nil || len(list) != 1 || list[0].OpenedAt.Sub(began) < 15*time.Minute || list[0].OpenedAt.Sub(began) > time.Hour {
		t.Errorf("%+v, %v", list, err)
	}
	fast.Store(false)
	r.follow("all is read", func() bool { return len(r.state().Backlog) == 0 })
	r.follow("it is over", func() bool { return !strings.Contains(r.incidents(), "open") })
}

// TestConsistencyOnlyForgetsHistory: a log that is not to be read any more is not
// behind, even if it does not grow.
func TestConsistencyOnlyForgetsHistory(t *testing.T) {
	r := newRig(t)
	r.fill(r.log, 2000)
	r.cfg.Schedule, r.cfg.Parallel, r.opts.LeapAfter, r.opts.CommitEvery = every(5*time.Millisecond), 1, 200, 256
	r.through(&source{leaves: func(from uint64) error {
		if from >= 512 {
			return errors.New("500")
		}
		return nil
	}})
	r.follow("a part is read", func() bool { return r.coverage() == "[0,512)" })
	r.cfg.ConsistencyOnly = true
	r.restart()
	r.mustPass()
	if s := r.state(); s.Scanned != 2000 || len(s.Backlog) != 0 || s.CatchUp != nil || r.coverage() != "[0,512)" {
		t.Errorf("scanned %d, backlog %v, %+v, coverage %s", s.Scanned, s.Backlog, s.CatchUp, r.coverage())
	}
	r.audit()
}

// TestRekorV1NewEntriesComeFirst is the same with proofs in place of tiles.
func TestRekorV1NewEntriesComeFirst(t *testing.T) {
	r := newRigV1(t)
	r.v1.Append(r.entry(unexpectedEvent(), 1))
	r.grow(999)
	r.cfg.Schedule, r.opts.LeapAfter = every(5*time.Millisecond), 100
	r.restart()
	r.follow("all is read", func() bool {
		s := r.state()
		return s.HeadSize == 1000 && len(s.Backlog) == 0 && r.coverage() == "[0,1000)"
	})
	r.grow(300) // after an outage
	r.v1.Append(r.entry(unexpectedEvent(), 2))
	r.restart()
	r.follow("all is read", func() bool { return r.coverage() == "[0,1301)" })
	if got := r.verdicts(); got != "0:unexpected 1300:unexpected" {
		t.Errorf("findings %s", got)
	}
	if s := r.state(); s.Entries != 1301 || len(s.Backlog) != 0 || s.Scanned != 1301 {
		t.Errorf("%d entries, scanned %d, backlog %v", s.Entries, s.Scanned, s.Backlog)
	}
	r.wantIncidents("")
	r.auditFindings()
}

// backlogStore sees of how many parts a backlog was at most.
type backlogStore struct {
	monitor.Store
	most atomic.Int64
}

func (s *backlogStore) Commit(ctx context.Context, logID string, old monitor.State, next *monitor.State, b monitor.Batch) (monitor.Recorded, error) {
	if next != nil {
		s.most.Store(max(s.most.Load(), int64(len(next.Backlog))))
	}
	return s.Store.Commit(ctx, logID, old, next, b)
}

// TestRekorV1Segments reads a history in segments, each proven by itself: the first is not answered
// for, which keeps the others from nothing, the second holds a wrong entry, and the program is
// stopped amid them.
func TestRekorV1Segments(t *testing.T) {
	r := newRigV1(t)
	ours := map[uint64]bool{0: true, 800: true, 900: true, 1599: true, 1700: true, 1999: true}
	for i := range uint64(2000) {
		if ours[i] {
			r.v1.Append(r.entry(unexpectedEvent(), int(i)))
		} else {
			r.v1.Append(r.filler)
		}
	}
	r.v1.Set(locallog.FaultsV1{Alter: map[uint64][]byte{634: []byte("{}")}, NoAnswer: map[uint64]bool{203: true}})
	r.cfg.Schedule, r.opts.LeapAfter, r.cfg.Parallel, r.opts.CommitEvery = every(5*time.Millisecond), 1000, 8, 50
	watched := &backlogStore{Store: r.store}
	r.opts.Store = watched
	r.restart()
	r.follow("several segments are read at a time", func() bool { return watched.most.Load() > 1 })
	r.restart()
	r.follow("history is read", func() bool {
		r.clock.move(time.Minute)
		return r.coverage() == "[0,2000)-[200,210)entry-withheld-[634,635)entry-mismatch"
	})
	if got := r.verdicts(); got != "0:unexpected 800:unexpected 900:unexpected 1599:unexpected 1700:unexpected 1999:unexpected" {
		t.Errorf("findings %s", got)
	}
	if s := r.state(); s.Entries != 2000-11 || len(s.Backlog) != 0 || s.Scanned != 2000 {
		t.Errorf("%d entries, scanned %d, backlog %v", s.Entries, s.Scanned, s.Backlog)
	}
	r.auditFindings()
}

// TestRekorV1LeapFaults is TestLeapFaults with proofs in place of tiles.
func TestRekorV1LeapFaults(t *testing.T) {
	for _, persisted := range []bool{false, true} {
		for _, nth := range sample(1, 2, 3, 4) {
			r := newRigV1(t)
			r.v1.Append(r.entry(unexpectedEvent(), 1))
			r.grow(2400) // more than one batch
			r.v1.Append(r.entry(unexpectedEvent(), 2))
			r.grow(20)
			faulty := &faultyStore{Store: r.store, nth: nth, persisted: persisted}
			r.opts.Store, r.opts.LeapAfter, r.opts.CommitEvery = faulty, 100, 256
			r.cfg.Schedule = every(5 * time.Millisecond)
			r.restart()
			r.follow("all is read", r.allRead(2422))
			if faulty.count < nth {
				t.Errorf("only %d commits", faulty.count)
			}
			if got := r.verdicts(); got != "0:unexpected 2401:unexpected" || r.state().Entries != 2422 {
				t.Errorf("fault at commit %d (persisted %v): %s, %d entries counted", nth, persisted, got, r.state().Entries)
			}
			pending, err := r.store.Channels(context.Background(), []string{"chat", "mail"})
			if err != nil || pending[0].Pending != 2 || pending[1].Pending != 2 {
				t.Errorf("fault at commit %d (persisted %v): %+v deliveries, %v", nth, persisted, pending, err)
			}
			r.wantIncidents("")
			r.auditFindings()
		}
	}
}

// TestNewWatchAmidHistory: a watch that begins while history is being read has
// covered what was read since, and the rest is told to be scanned.
func TestNewWatchAmidHistory(t *testing.T) {
	r := newRig(t)
	r.fill(r.log, 2000)
	r.cfg.Schedule, r.cfg.Parallel, r.opts.LeapAfter, r.opts.CommitEvery = every(5*time.Millisecond), 1, 100, 256
	blocked := true
	s := r.through(&source{leaves: func(from uint64) error {
		if from >= 1024 && blocked {
			return errors.New("500")
		}
		return nil
	}})
	r.follow("a part is read", func() bool { return r.coverage() == "[0,1024)" })
	list, err := watchlist.Compile(append(r.opts.Watches.Watches(), watchlist.Watch{Name: "new", Match: []watchlist.Item{{Subject: []string{"*@new.example"}}}}))
	if err != nil {
		t.Fatal(err)
	}
	r.opts.Watches, r.opts.WatchConfigs = list, append(r.opts.WatchConfigs, monitor.WatchConfig{})
	s.leaves = nil
	r.restart()
	r.mustPass()
	if got := r.coverage(); got != "[1024,2000)" { // what every watch has covered
		t.Errorf("coverage %s", got)
	}
	missing, err := r.engine.Uncovered(context.Background(), r.store)
	if err != nil || len(missing) != 1 || missing[0].From != 0 || missing[0].To != 1024 {
		t.Errorf("%+v, %v", missing, err)
	}
}

// TestSmallerForkAfterLeap: a fork below what was leapt over, and read since, is
// told as one below what was read in order.
func TestSmallerForkAfterLeap(t *testing.T) {
	for _, after := range sample[uint64](100, 1<<40) {
		r := newRig(t)
		r.fill(r.log, 140000)
		r.cfg.Schedule, r.cfg.Parallel, r.opts.LeapAfter = every(5*time.Millisecond), 4, after
		r.restart()
		r.follow("read", r.allRead(140000))
		for index, width := range []int{256, 256} {
			tile, err := r.store.OwnTile(context.Background(), r.cfg.ID, 1, uint64(index))
			if err != nil || len(tile) != width {
				t.Errorf("leap after %d: own tile %d of level 1 has %d hashes, %v", after, index, len(tile), err)
			}
		}
		fork, err := r.log.Fork(70000)
		if err != nil {
			t.Fatal(err)
		}
		r.sign(fork, expectedEvent())
		r.fill(fork, 2000)
		r.server.Show(fork, nil)
		r.once()
		r.wantIncidents("fork:integrity:open")
	}
}

// TestHistoryUnanswered: a server that does not answer for a part of history
// answers polls all the same; it is not unreachable, and the part becomes a gap.
func TestHistoryUnanswered(t *testing.T) {
	r := newRigV1(t)
	r.grow(500)
	r.v1.Set(locallog.FaultsV1{NoAnswer: map[uint64]bool{100: true}})
	r.cfg.Schedule, r.opts.LeapAfter = every(5*time.Millisecond), 100
	r.restart()
	r.follow("history is read", func() bool {
		r.clock.move(time.Minute)
		return r.coverage() == "[0,500)-[100,110)entry-withheld"
	})
	if got := r.incidents(); strings.Contains(got, "unreachable") {
		t.Error(got)
	}
}
