package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/sigwarden/sigwarden/checkpoint"
	"github.com/sigwarden/sigwarden/checkpoint/witness"
	"github.com/sigwarden/sigwarden/monitor"
	"github.com/sigwarden/sigwarden/monitor/config"
	"github.com/sigwarden/sigwarden/monitor/store"
	"github.com/sigwarden/sigwarden/monitor/web"
	"github.com/sigwarden/sigwarden/notify"
)

// cosigning is the witness of a daemon.
type cosigning struct {
	setup    *setup
	state    *store.Store
	promises *store.Witness
	witness  *witness.Witness
	listener net.Listener
	log      *slog.Logger
	engine   *monitor.Engine // set before anything is served
	locks    []func()
	feeder   *feeder // nil: nothing is brought anywhere

	mu     sync.RWMutex
	limits map[string]*rate.Limiter // of logs that are followed, by origin
	listed map[string]*witness.Log  // logs of lists that may be signed, by origin
	paths  map[string]string        // origins of all that are known, by their paths
}

// openWitness makes the witness of a configuration; nil where there is none.
func (a *app) openWitness(ctx context.Context, s *setup, st *store.Store, log *slog.Logger) (_ *cosigning, err error) {
	cfg := &s.cfg.Witness
	if cfg.Listen == "" {
		return nil, nil
	}
	w := &cosigning{setup: s, state: st, log: log.With("part", "witness"), limits: map[string]*rate.Limiter{}, listed: map[string]*witness.Log{}, paths: map[string]string{}}
	defer func() {
		if err != nil {
			w.close()
		}
	}()
	opts := witness.Options{Log: w.logOf, ByPath: w.byPath, Contradiction: w.contradiction, Doubted: w.doubted, Rejected: w.rejected, Logger: w.log}
	for _, k := range cfg.Keys {
		c, err := a.cosigner(k)
		if err != nil {
			return nil, usage(&config.Error{Issues: []config.Issue{s.cfg.At(k.Path, err.Error())}})
		}
		release, err := lockKey(k, c.Verifier)
		if err != nil {
			return nil, err
		}
		w.locks = append(w.locks, release)
		opts.Cosigners = append(opts.Cosigners, c)
	}
	if w.promises, err = store.OpenWitness(ctx, s.cfg.State, store.Options{Create: true}); err != nil {
		return nil, err
	}
	if err := w.checkMark(ctx); err != nil {
		return nil, err
	}
	if w.promises.Created() {
		w.log.Warn("the witness has no state and begins anew: if one of its keys has signed before, restore the file that knows what", "file", s.cfg.State+"-witness")
	}
	opts.Store, opts.About = w.promises, about(cfg, opts.Cosigners)
	if cfg.SignSubtree {
		// There are many subtrees, and what is asked for costs whoever asks nothing.
		opts.Subtrees = rate.NewLimiter(50, 200).Allow
	}
	if w.witness, err = witness.New(opts); err != nil {
		return nil, err
	}
	if len(cfg.Distributors)+len(cfg.Peers) > 0 {
		if w.feeder, err = w.newFeeder(); err != nil {
			return nil, err
		}
	}
	if err := w.reload(ctx); err != nil {
		return nil, err
	}
	if w.listener, err = net.Listen("tcp", cfg.Listen); err != nil {
		return nil, fmt.Errorf("witness.listen: %w", err)
	}
	return w, nil
}

// markEvery is how often the time of the newest cosignature is noted beside the monitor's
// state.
const markEvery = 10 * time.Second

// checkMark refuses a state of the witness that is older than what the monitor's state
// knows of it. SPEC: tlog-witness: a witness that was restored from an older copy, or has
// lost its state, would sign what contradicts its own cosignatures.
func (w *cosigning) checkMark(ctx context.Context) error {
	mark, err := w.state.WitnessMark(ctx)
	if err != nil {
		return err
	}
	last, err := w.promises.Last(ctx)
	if err != nil || last >= mark {
		return err
	}
	have := "it knows of none"
	if last > 0 {
		have = "the newest that it knows of is of " + stamp(time.Unix(last, 0))
	}
	return fmt.Errorf("the state of the witness, %s-witness, is older than its newest cosignature, or is lost: it has signed at %s, and %s. Restore the newest copy of that file. If there is none, give the witness new keys; then, or if you are sure that nothing was signed that it does not know of, run: sigwarden witness trust --restored --note TEXT",
		w.setup.cfg.State, stamp(time.Unix(mark, 0)), have)
}

// keepMark notes the time of the newest cosignature until ctx ends.
func (w *cosigning) keepMark(ctx context.Context) {
	for again := true; again; {
		again = pause(ctx, markEvery)
		last, err := w.promises.Last(context.WithoutCancel(ctx))
		if err == nil {
			err = w.state.SetWitnessMark(context.WithoutCancel(ctx), last)
		}
		if err != nil {
			w.log.Error("the time of the newest cosignature could not be noted beside the monitor's state", "error", err)
		}
	}
}

func (w *cosigning) close() {
	if w.listener != nil {
		w.listener.Close()
	}
	if w.promises != nil {
		w.promises.Close()
	}
	for _, release := range w.locks {
		release()
	}
}

// about is the page that is published of a witness.
func about(cfg *config.Witness, keys []*witness.Cosigner) string {
	var b strings.Builder
	b.WriteString("A witness of transparency logs (C2SP tlog-witness), run with sigwarden.\n\n")
	for name, value := range map[string]string{"Operator": cfg.Operator, "Contact": cfg.Contact} {
		if value != "" {
			fmt.Fprintf(&b, "%s: %s\n", name, notify.Clean(value, 300))
		}
	}
	for _, k := range keys {
		fmt.Fprintf(&b, "Verifier key (%s): %s\n", k.Algorithm(), k.Verifier)
	}
	fmt.Fprintf(&b, "Submission: POST %[1]s/add-checkpoint\nMonitoring: GET %[1]s/<hex SHA-256 of the origin>/checkpoint\n", strings.TrimRight(cfg.Prefix, "/"))
	if cfg.SignSubtree {
		fmt.Fprintf(&b, "Subtrees: POST %s/sign-subtree\n", strings.TrimRight(cfg.Prefix, "/"))
	}
	if cfg.Audited {
		b.WriteString("Of logs that this witness follows it signs only trees whose every entry it has read.\n")
	}
	return b.String()
}

// A followed log may be asked for as often; the log itself decides when it asks.
const (
	followedPerSecond = 5
	followedAtOnce    = 50
)

// logOf returns the log with an origin, if it is to be signed: those that are followed
// come before those of lists, which never change one. Nothing of a log that is followed
// is signed without the engine's word, whatever names it.
func (w *cosigning) logOf(origin string) *witness.Log {
	w.mu.RLock()
	listed := w.listed[origin]
	w.mu.RUnlock()
	for _, f := range w.engine.Followed() {
		if f.Log.Origin() != origin {
			continue
		}
		chosen := w.chosen(f.Name)
		if !chosen && listed == nil {
			return nil
		}
		audited := chosen && w.setup.cfg.Witness.Audited
		return &witness.Log{
			Log: f.Log, Allow: w.limit(origin).Allow,
			Refuse: func(ctx context.Context, c checkpoint.Checkpoint) (string, time.Duration) {
				return w.engine.Vouch(ctx, c, audited)
			},
			Stopped: func(ctx context.Context) string { return w.engine.Stopped(ctx, origin) },
		}
	}
	return listed
}

// limit returns what bounds the requests for a followed log.
func (w *cosigning) limit(origin string) *rate.Limiter {
	w.mu.Lock()
	defer w.mu.Unlock()
	l := w.limits[origin]
	if l == nil {
		l = rate.NewLimiter(followedPerSecond, followedAtOnce)
		w.limits[origin] = l
	}
	return l
}

func (w *cosigning) chosen(name string) bool {
	names := w.setup.cfg.Witness.Logs
	return names == nil || slices.Contains(names, name)
}

func (w *cosigning) byPath(path string) (string, bool) {
	for _, f := range w.engine.Followed() {
		if witness.PathOf(f.Log.Origin()) == path && w.chosen(f.Name) {
			return f.Log.Origin(), true
		}
	}
	w.mu.RLock()
	defer w.mu.RUnlock()
	origin, ok := w.paths[path]
	return origin, ok
}

// reload takes over what lists have named so far.
func (w *cosigning) reload(ctx context.Context) error {
	logs, err := w.promises.ListedLogs(ctx)
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	listed, paths := map[string]*witness.Log{}, map[string]string{}
	for _, l := range logs {
		if l.Disabled != "" {
			continue
		}
		if old := w.listed[l.Origin]; old != nil { // with what it has used of its rate
			listed[l.Origin], paths[witness.PathOf(l.Origin)] = old, l.Origin
			continue
		}
		log, err := logOfKey(l.Origin, l.Key)
		if err != nil {
			w.log.Warn("a listed log cannot be used", "origin", l.Origin, "error", err)
			continue
		}
		// A day's worth, spread over the day; a minute's at a time.
		perDay := float64(l.PerDay)
		limit := rate.NewLimiter(rate.Limit(perDay/86400), max(10, int(perDay/1440)))
		listed[l.Origin], paths[witness.PathOf(l.Origin)] = &witness.Log{Log: log, Allow: limit.Allow}, l.Origin
	}
	w.listed, w.paths = listed, paths
	return nil
}

// logOfKey is a log with one key, whose name need not be its origin.
func logOfKey(origin, key string) (*checkpoint.Log, error) {
	v, err := checkpoint.ParseKey(origin, key)
	if err != nil {
		return nil, err
	}
	return checkpoint.NewLog(origin, v)
}

// contradiction stores what shows that a log has forked.
func (w *cosigning) contradiction(ctx context.Context, origin string, e *checkpoint.DivergenceError) {
	where := "what this witness was asked to co-sign"
	followed, err := w.engine.Contradicted(ctx, origin, e, where)
	if err == nil && !followed {
		err = w.engine.ContradictedElsewhere(ctx, origin, e, where)
	}
	if err != nil {
		w.log.Error("a contradiction could not be stored with the incidents; the witness signs nothing more of that log", "origin", origin, "error", err)
	}
}

func (w *cosigning) doubted(ctx context.Context, origin, reason string) {
	if err := w.engine.WitnessDoubts(ctx, origin, reason); err != nil {
		w.log.Error("an incident could not be stored", "origin", origin, "error", err)
	}
}

func (w *cosigning) rejected(ctx context.Context, origin string, request []byte) {
	if err := w.promises.Reject(ctx, origin, request, time.Now()); err != nil {
		w.log.Error("a request whose proof does not verify could not be kept", "origin", origin, "error", err)
	}
}

// seen looks at what a log has published.
func (w *cosigning) seen(ctx context.Context, c checkpoint.Checkpoint) bool {
	return w.witness.Look(ctx, c)
}

// run serves the protocol and reads lists until ctx ends.
func (w *cosigning) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	for _, l := range w.setup.cfg.Witness.Lists {
		wg.Go(func() { w.follow(ctx, l) })
	}
	if w.feeder != nil {
		wg.Go(func() { w.feeder.run(ctx) })
	}
	wg.Go(func() { w.keepMark(ctx) })
	// What was begun is done before the state is closed and the keys are let go.
	var begun sync.WaitGroup
	defer begun.Wait()
	protocol := w.witness.Handler(w.setup.cfg.Witness.Prefix)
	cfg := w.setup.cfg.Witness
	listener, connections := web.Bounded(w.listener)
	server := &http.Server{
		Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			begun.Add(1)
			defer begun.Done()
			protocol.ServeHTTP(rw, r)
		}),
		ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 15 * time.Second, WriteTimeout: 90 * time.Second, IdleTimeout: 2 * time.Minute,
		MaxHeaderBytes: 16 << 10, ConnState: connections,
		ErrorLog: slog.NewLogLogger(w.log.Handler(), slog.LevelDebug),
	}
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		if err := server.Shutdown(last); err != nil {
			server.Close()
		}
	})
	w.log.Info("co-signing checkpoints", "address", w.listener.Addr().String(), "prefix", cfg.Prefix)
	err := server.Serve(listener)
	if !stop() {
		<-stopped
		return nil // it was asked to end
	}
	return fmt.Errorf("serving the witness: %w", err)
}

// follow reads a list again and again.
func (w *cosigning) follow(ctx context.Context, l config.LogList) {
	wait := time.Duration(0)
	for pause(ctx, wait) {
		wait = l.Every
		if err := w.readList(ctx, l); err != nil && ctx.Err() == nil {
			w.log.Warn("a list of logs cannot be read; those that it has named before are co-signed all the same", "list", l.File+l.URL, "error", err)
			wait = min(wait, 10*time.Minute)
		}
	}
}

func (w *cosigning) readList(ctx context.Context, l config.LogList) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	data, err := fetchList(ctx, l)
	if err != nil {
		return err
	}
	logs, skipped, err := witness.ParseLogList(data)
	if err != nil {
		return err
	}
	if len(skipped) > 0 {
		w.log.Warn("a list names logs with keys of a kind that is not known; they are left out", "list", l.File+l.URL, "logs", len(skipped))
	}
	added, changed, err := w.promises.AddListed(ctx, l.File+l.URL, logs, time.Now())
	if err != nil {
		return err
	}
	if len(changed) > 0 {
		w.log.Warn("a list gives logs that are known another key; they stay as they are", "list", l.File+l.URL, "origins", changed[:min(len(changed), 10)], "logs", len(changed))
	}
	if added > 0 {
		if err := w.reload(ctx); err != nil {
			return err
		}
	}
	w.log.Info("a list of logs was read", "list", l.File+l.URL, "logs", len(logs), "new", added)
	return nil
}

func fetchList(ctx context.Context, l config.LogList) ([]byte, error) {
	if l.File != "" {
		f, err := os.Open(l.File)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		return io.ReadAll(io.LimitReader(f, witness.MaxLogList+1))
	}
	roots, err := certPool(l.TLSCA)
	if err != nil {
		return nil, fmt.Errorf("tls_ca: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, l.URL, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", "sigwarden")
	client := notify.PlainClient(roots)
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("was answered with %s", resp.Status)
	}
	return io.ReadAll(io.LimitReader(resp.Body, witness.MaxLogList+1))
}
