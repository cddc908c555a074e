package simulation

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sigwarden/sigwarden/checkpoint"
	"github.com/sigwarden/sigwarden/checkpoint/ledger"
	"github.com/sigwarden/sigwarden/checkpoint/witness"
	"github.com/sigwarden/sigwarden/monitor"
	"github.com/sigwarden/sigwarden/monitor/store"
	"github.com/sigwarden/sigwarden/monitor/store/simdisk"
	"github.com/sigwarden/sigwarden/notify"
	"github.com/sigwarden/sigwarden/watchlist"
)

// rule is a watchlist that is in force for a while, and what it makes of entries.
type rule struct {
	list     *watchlist.List
	config   monitor.WatchConfig
	hash     string
	expected map[kind]bool
}

// channels are what findings are told to.
var channels = []string{"chat", "mail"}

var makeRules = [2]func() ([]*rule, error){
	sync.OnceValues(func() ([]*rule, error) { return compileRules(1) }),
	sync.OnceValues(func() ([]*rule, error) { return compileRules(2) }),
}

// compileRules makes the rules for a number of channels.
func compileRules(n int) ([]*rule, error) {
	var out []*rule
	workflows := [][]string{{"release.yml@refs/tags/v*"}, {"release.yml@refs/tags/v*", "nightly.yml@refs/heads/main"}}
	for _, expect := range workflows {
		w := watchlist.Watch{Name: "releases", Match: []watchlist.Item{{Subject: []string{"https://github.com/acme/*"}}}}
		for _, name := range expect {
			w.Expect = append(w.Expect, watchlist.Item{Subject: []string{"https://github.com/acme/widget/.github/workflows/" + name}, Issuer: []string{github},
				Extensions: map[string][]string{"runner-environment": {"github-hosted"}}})
		}
		list, err := watchlist.Compile([]watchlist.Watch{w})
		if err != nil {
			return nil, err
		}
		r := &rule{list: list, config: monitor.WatchConfig{Severity: "critical", Channels: channels[:n]}, expected: map[kind]bool{release: true, nightly: len(expect) > 1}}
		r.hash = monitor.RuleHash(list.Watches()[0], r.config)
		out = append(out, r)
	}
	return out, nil
}

// changeRules puts the other rule in force, as somebody who edits the configuration does.
func (w *world) changeRules() {
	w.mu.Lock()
	w.active = 1 - w.active
	w.mu.Unlock()
	w.audit.inForce(w.rules[w.active].hash)
	if p := w.audit.process(); p != nil {
		p.reload()
	}
}

// freshDisk is a disk with state files that hold nothing.
func freshDisk(t testing.TB) *simdisk.Disk {
	t.Helper()
	blankOnce.Do(func() {
		d := simdisk.New()
		defer d.Close()
		s, err := store.Open(context.Background(), d.Path("state.db"), store.Options{VFS: simdisk.Name})
		if err != nil {
			t.Fatal(err)
		}
		s.Close()
		w, err := store.OpenWitness(context.Background(), d.Path("state.db"), store.Options{VFS: simdisk.Name})
		if err != nil {
			t.Fatal(err)
		}
		w.Close()
		blankImages = map[string][]byte{}
		for _, name := range d.Names() {
			blankImages[name] = must(d.Get(name))
		}
	})
	d := simdisk.New()
	for name, image := range blankImages {
		d.Put(name, image)
	}
	return d
}

var (
	blankOnce   sync.Once
	blankImages map[string][]byte
)

// process is the program: it is begun again whenever it ends.
type process struct {
	w *world

	mu      sync.Mutex
	current *life
}

// life is one run of it.
type life struct {
	w          *world
	ctx        context.Context
	cancel     context.CancelFunc
	crashed    atomic.Bool // nothing that it does has an effect any more
	reloading  atomic.Bool
	rule       string // the hash of that in force
	store      *store.Store
	promises   *store.Witness
	engine     *monitor.Engine
	dispatcher *notify.Dispatcher
	witness    *witness.Witness
}

func (p *process) now() *life {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.current
}

func (p *process) set(l *life) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.current = l
}

// reload lets the process take over the rules of now.
func (p *process) reload() {
	if l := p.now(); l != nil {
		l.reloading.Store(true)
		l.cancel()
	}
}

// supervise keeps the process going until it is to stop.
func (p *process) supervise(stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			return
		default:
		}
		if err := p.live(stop); err != nil {
			p.w.say.Info("the process ended", "error", err)
			time.Sleep(10 * time.Second) // as the unit of systemd has it
		}
	}
}

// live is one life, from opening the state to its end.
func (p *process) live(stop <-chan struct{}) error {
	w := p.w
	w.disk.Boot()
	l := &life{w: w}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	defer l.cancel()
	w.disk.OnCut(func() {
		l.crashed.Store(true)
		l.cancel()
	})
	err := l.open()
	if err == nil {
		p.set(l)
		err = l.serve(stop)
		p.set(nil)
	}
	if l.promises != nil {
		l.promises.Close()
	}
	if l.store != nil {
		l.store.Close()
	}
	if l.crashed.Load() {
		w.mu.Lock()
		share := w.share
		w.mu.Unlock()
		if share >= 0 {
			w.disk.PowerFails(w.chance("power", w.net.times("power")), share)
		}
		w.faults.set("end", nil)
		return errors.New("it crashed")
	}
	return err
}

func (l *life) open() (err error) {
	path := l.w.disk.Path("state.db")
	if l.store, err = store.Open(l.ctx, path, store.Options{VFS: simdisk.Name, Now: l.w.now}); err != nil {
		return err
	}
	l.promises, err = store.OpenWitness(l.ctx, path, store.Options{VFS: simdisk.Name, Now: l.w.now})
	return err
}

// serve runs until the process is to stop, or has crashed. New rules make new parts on the
// same store, as in the program.
func (l *life) serve(stop <-chan struct{}) error {
	for {
		ended, err := l.follow(stop)
		if err != nil || ended {
			return err
		}
	}
}

func (l *life) follow(stop <-chan struct{}) (ended bool, err error) {
	w := l.w
	outer := l.ctx
	l.reloading.Store(false)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if l.crashed.Load() {
		return true, outer.Err()
	}
	l.ctx, l.cancel = ctx, cancel
	w.mu.Lock()
	r := w.rules[w.active]
	w.mu.Unlock()
	if err := l.assemble(r); err != nil {
		return true, err
	}
	var wg sync.WaitGroup
	wg.Go(func() { l.engine.Run(ctx) })
	wg.Go(func() { l.dispatcher.Run(ctx) })
	wg.Go(func() { l.feed(ctx) })
	select {
	case <-stop:
		ended = true
	case <-ctx.Done():
		ended = !l.reloading.Load()
	}
	cancel()
	wg.Wait()
	if !l.crashed.Load() {
		// What the program does at its end may fail, as everything may.
		if err := l.store.End(context.Background(), w.now()); err != nil {
			w.say.Info("the end could not be noted", "error", err)
		}
	}
	return ended || l.crashed.Load(), nil
}

// assemble makes the parts of the program.
func (l *life) assemble(r *rule) (err error) {
	w := l.w
	l.rule = r.hash
	if err := l.store.KeepRules(l.ctx, map[string][]byte{r.hash: monitor.RuleDocument(r.list.Watches()[0], r.config)}); err != nil {
		return err
	}
	if _, err := l.store.Begin(l.ctx, []ledger.Rule{{Watch: "releases", Hash: r.hash}}, func(string) bool { return true }, w.now()); err != nil {
		return err
	}
	box := &outbox{l.store, l}
	var list []notify.Channel
	for _, name := range w.channels {
		list = append(list, notify.Channel{Name: name, Notifier: &receiver{name, l}})
	}
	l.dispatcher = notify.NewDispatcher(box, list, w.say)
	l.dispatcher.Now = w.now
	opts := monitor.Options{
		Store: &audited{l.store, l}, Watches: r.list, WatchConfigs: []monitor.WatchConfig{r.config}, IncidentChannels: w.channels, HealthChannels: w.channels[:1],
		Wake: l.dispatcher.Wake, Now: w.now, Logger: w.say, CommitEvery: 100,
		Jitter: func(d time.Duration) time.Duration {
			return time.Duration(w.chance("jitter", w.net.times("jitter")).Int64N(int64(d)/10 + 1))
		},
		Seen: func(ctx context.Context, c checkpoint.Checkpoint) bool { return l.witness.Look(ctx, c) },
		Logs: []monitor.LogConfig{w.logs[0].config()},
	}
	states, err := l.store.States(l.ctx)
	if err != nil {
		return err
	}
	for _, member := range w.family {
		if s, ok := states[member.id]; ok && s.Head != "" {
			opts.Logs = append(opts.Logs, member.config())
		}
	}
	if len(w.family) > 0 {
		opts.Families = []monitor.Family{{Name: "shards", Schedule: every(pollEvery), List: func(ctx context.Context) ([]monitor.LogConfig, error) {
			return w.list(ctx, l.store)
		}}}
	}
	if l.engine, err = monitor.New(opts); err != nil {
		return err
	}
	l.witness, err = witness.New(witness.Options{
		Cosigners: []*witness.Cosigner{w.audit.cosigner}, Store: l.promises, Now: w.now, Logger: w.say,
		Log: func(origin string) *witness.Log {
			for _, f := range l.engine.Followed() {
				switch {
				case f.Log.Origin() != origin:
				case w.seed >= firstListed:
					return &witness.Log{Log: f.Log}
				default:
					return &witness.Log{Log: f.Log,
						Refuse: func(ctx context.Context, c checkpoint.Checkpoint) (string, time.Duration) {
							return l.engine.Vouch(ctx, c, w.seed%2 == 0)
						},
						Stopped: func(ctx context.Context) string { return l.engine.Stopped(ctx, origin) }}
				}
			}
			return nil
		},
		ByPath: func(string) (string, bool) { return "", false },
		Contradiction: func(ctx context.Context, origin string, e *checkpoint.DivergenceError) {
			if _, err := l.engine.Contradicted(ctx, origin, e, "the witness"); err != nil {
				w.say.Info("a contradiction could not be stored", "error", err)
			}
		},
		Doubted: func(ctx context.Context, origin, reason string) {
			if err := l.engine.WitnessDoubts(ctx, origin, reason); err != nil {
				w.say.Info("a doubt could not be stored", "error", err)
			}
		},
		Rejected: func(context.Context, string, []byte) {},
	})
	return err
}

// list is what the trusted root names.
func (w *world) list(ctx context.Context, st *store.Store) ([]monitor.LogConfig, error) {
	if s := w.family[0].v1; s != nil {
		return s.list(ctx, st)
	}
	rng := w.chance("listing", w.net.times("listing"))
	if err := wait(ctx, time.Duration(1+rng.IntN(20))*time.Millisecond); err != nil {
		return nil, err
	}
	w.mu.Lock()
	listed := w.listed
	w.mu.Unlock()
	if w.net.now(w.family[0].host) == "outage" {
		return nil, errOutage
	}
	states, err := st.States(ctx)
	if err != nil {
		return nil, err
	}
	known := 0
	for _, s := range states {
		if s.Head != "" && strings.HasPrefix(s.Name, "shard") {
			known++
		}
	}
	var out []monitor.LogConfig
	for _, l := range w.family[:listed] {
		cfg := l.config()
		cfg.New = known > 0 && states[l.id].Head == ""
		out = append(out, cfg)
	}
	return out, nil
}

// feed asks the witness to co-sign what the engine has verified, and what the logs
// themselves ask for.
func (l *life) feed(ctx context.Context) {
	w := l.w
	if w.alone() {
		return
	}
	for n := 0; ; n++ {
		pause := pollEvery
		if w.liar {
			pause /= 2
		}
		if wait(ctx, pause+time.Duration(n%7)*time.Millisecond) != nil {
			return
		}
		if w.net.stopped() {
			continue // what is said now would not be told before the end
		}
		for _, log := range w.logs {
			origin := log.origin
			state, err := l.promises.State(ctx, origin)
			if err != nil {
				continue
			}
			rng := w.chance("asking for "+log.name, w.net.times("asking for "+log.name))
			if rng.IntN(2) == 0 {
				raw, proof, err := l.engine.Newest(ctx, origin, state.Size)
				if err == nil && raw != nil {
					l.add(ctx, log, witness.Request{Old: state.Size, Proof: proof, Note: raw})
				}
				continue
			}
			if note, proof, err := log.ask(ctx, state.Size, rng.IntN(2) == 0); err == nil {
				l.add(ctx, log, witness.Request{Old: state.Size, Proof: proof, Note: note})
			}
		}
	}
}

// add hands a request to the witness, and its answer to the auditor.
func (l *life) add(ctx context.Context, log *simLog, r witness.Request) {
	a := l.witness.Add(ctx, r.Format())
	if l.crashed.Load() {
		return // nobody has got it
	}
	l.w.count(fmt.Sprintf("cosignature: %d", a.Status))
	if a.Status == 200 {
		l.w.audit.cosigned(log, r.Note, a.Body)
	}
}

// audited is the real store, and tells the auditor of what it has accepted.
type audited struct {
	*store.Store
	life *life
}

// Commit implements monitor.Store.
func (a *audited) Commit(ctx context.Context, logID string, old monitor.State, next *monitor.State, b monitor.Batch) (monitor.Recorded, error) {
	if len(b.Coverage) > 0 && (len(b.WatchSet) != 1 || b.WatchSet[0] != a.life.rule) {
		a.life.w.wrong("%s: coverage is claimed for rules %v, and %s is in force", logID, b.WatchSet, a.life.rule)
	}
	for _, f := range b.Findings {
		if f.RuleHash != a.life.rule {
			a.life.w.wrong("%s: entry %d is judged by rule %s, and %s is in force", logID, f.Index, f.RuleHash, a.life.rule)
		}
	}
	rec, err := a.Store.Commit(ctx, logID, old, next, b)
	if err == nil && next != nil && !a.life.crashed.Load() {
		a.life.w.audit.committed(logID, next)
	}
	return rec, err
}

// outbox is the real outbox, and tells the auditor what is settled.
type outbox struct {
	*store.Store
	life *life
}

// Delivered implements notify.Outbox.
func (o *outbox) Delivered(ctx context.Context, q notify.Queued, at time.Time) error {
	err := o.Store.Delivered(ctx, q, at)
	if err == nil && !o.life.crashed.Load() {
		o.life.w.people.settle(q)
	}
	return err
}

// Fail implements notify.Outbox.
func (o *outbox) Fail(ctx context.Context, q notify.Queued, at time.Time, reason string) error {
	inc := monitor.DeliveryFailed(q, reason, at, monitor.Audience{Channels: channels[:1]})
	o.life.w.count("delivery given up")
	return o.FailDelivery(ctx, q, reason, &inc)
}
