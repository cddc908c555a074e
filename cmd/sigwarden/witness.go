package main

import (
	"context"
	"encoding/json"
	"errors"
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

	"github.com/spf13/cobra"
	"golang.org/x/time/rate"

	"github.com/sigwarden/sigwarden/checkpoint"
	"github.com/sigwarden/sigwarden/checkpoint/witness"
	"github.com/sigwarden/sigwarden/monitor"
	"github.com/sigwarden/sigwarden/monitor/config"
	"github.com/sigwarden/sigwarden/monitor/store"
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
	if w.promises, err = store.OpenWitness(ctx, s.cfg.State, true); err != nil {
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
	server := &http.Server{
		Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			begun.Add(1)
			defer begun.Done()
			protocol.ServeHTTP(rw, r)
		}),
		ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 15 * time.Second, WriteTimeout: 90 * time.Second, IdleTimeout: 2 * time.Minute,
		MaxHeaderBytes: 16 << 10,
		ErrorLog:       slog.NewLogLogger(w.log.Handler(), slog.LevelDebug),
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
	err := server.Serve(w.listener)
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
	w.log.Info("a list of logs was read", "list", l.File+l.URL, "logs", len(logs), "new", added)
	if added == 0 {
		return nil
	}
	return w.reload(ctx)
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

func (a *app) witnessCommand() *cobra.Command {
	group := &cobra.Command{Use: "witness", Short: "Co-sign checkpoints of logs"}
	group.AddCommand(a.keygenCommand(), a.witnessLogsCommand(), a.witnessTrustCommand(), a.witnessDisableCommand("disable", "Take a log of a list out", true), a.witnessDisableCommand("enable", "Put a log of a list back", false))
	return group
}

func (a *app) keygenCommand() *cobra.Command {
	var name, algorithm, out string
	c := &cobra.Command{
		Use: "keygen --name NAME", Short: "Make a key for a witness",
		Long: `Makes a signing key and writes it to a file that nobody else can read. What it
prints is the verifier key, to be published. NAME is that of the witness, like
witness.acme.example/w1: a domain of yours and a path. One key is for one
witness: never sign with it elsewhere.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			algorithms := map[string]witness.Algorithm{"ed25519": witness.Ed25519, "ml-dsa-44": witness.MLDSA44}
			if err := known("algorithm", algorithm, []string{"ed25519", "ml-dsa-44"}); err != nil {
				return err
			}
			if name == "" {
				return usage(errors.New("keygen wants --name, that of the witness, like witness.acme.example/w1"))
			}
			if out == "" {
				out = strings.NewReplacer("/", "-", string(os.PathSeparator), "-").Replace(name) + ".key"
			}
			secret, key, err := witness.GenerateKey(name, algorithms[algorithm])
			if err != nil {
				return usage(err)
			}
			f, err := os.OpenFile(out, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
			if err != nil {
				return fmt.Errorf("the signing key cannot be written, and an existing file is never overwritten: %w", err)
			}
			_, err = fmt.Fprintln(f, secret)
			if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
				return err
			}
			fmt.Fprintf(a.stderr, "the signing key is in %s; keep it, and name it under witness.keys as file:%s. The verifier key, to be published:\n", safe(out), safe(out))
			fmt.Fprintln(a.stdout, key.Verifier)
			return nil
		},
	}
	c.Flags().StringVar(&name, "name", "", "name of the witness")
	c.Flags().StringVar(&algorithm, "algorithm", "ml-dsa-44", "ml-dsa-44 or ed25519")
	c.Flags().StringVarP(&out, "output", "o", "", "file for the signing key (default: the name, with .key behind it)")
	return c
}

// withPromises opens the state of a witness, which no daemon may have just now.
func (a *app) withPromises(ctx context.Context, do func(*setup, *store.Witness) error) error {
	s, err := a.load()
	if err != nil {
		return err
	}
	p, err := store.OpenWitness(ctx, s.cfg.State, false)
	if err != nil {
		return err
	}
	defer p.Close()
	return do(s, p)
}

func (a *app) witnessLogsCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{Use: "logs", Short: "List what was co-signed last of each log; not while the daemon runs", Args: cobra.NoArgs, RunE: func(c *cobra.Command, _ []string) error {
		return a.withPromises(c.Context(), func(_ *setup, p *store.Witness) error {
			all, err := p.All(c.Context())
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(a.stdout, all)
			}
			t := newTable(a.stdout, "ORIGIN\tSIZE\tSIGNED\tDOUBT")
			defer t.end()
			for _, x := range all {
				t.add(x.Origin, fmt.Sprint(x.Size), stamp(x.At), x.Doubt)
			}
			return nil
		})
	}}
	c.Flags().BoolVar(&asJSON, "json", false, "print a JSON array")
	return c
}

func (a *app) witnessTrustCommand() *cobra.Command {
	var note, by string
	var restored bool
	c := &cobra.Command{
		Use: "trust ORIGIN --note TEXT", Short: "Sign a log again that was doubted, after a person has looked",
		Long: `Ends the doubt about a log: its checkpoints are co-signed again. Nothing smaller,
and nothing with an earlier time, is signed than what is known to have been
signed before. With --restored, and without an origin, it takes the state of the
witness as it is, though the monitor knows that something was signed later. The
daemon must not run meanwhile.`,
		Args: cobra.MaximumNArgs(1), RunE: func(c *cobra.Command, args []string) error {
			if restored == (len(args) == 1) {
				return usage(errors.New("witness trust wants the origin of a log, or --restored"))
			}
			if restored {
				return a.trustRestored(c.Context(), note, by)
			}
			return a.decideWitness(c.Context(), "witness-trust", "trusted", args[0], note, by, func(s *setup, p *store.Witness, st *store.Store) error {
				if err := p.Trust(c.Context(), args[0]); err != nil {
					return err
				}
				return s.settleDoubt(c.Context(), st, args[0], by, note)
			})
		},
	}
	c.Flags().StringVar(&note, "note", "", "what was found out")
	c.Flags().StringVar(&by, "by", whoami(), "who decides")
	c.Flags().BoolVar(&restored, "restored", false, "take the state of the witness as it is")
	return c
}

// settleDoubt resolves the incidents about a log that is signed again.
func (s *setup) settleDoubt(ctx context.Context, st *store.Store, origin, by, note string) error {
	all, err := st.Incidents(ctx, store.Filter{Kind: monitor.KindWitnessDoubt})
	if err != nil {
		return err
	}
	for _, inc := range all {
		var d struct{ Origin string }
		if inc.State == monitor.StateResolved || json.Unmarshal(inc.Details, &d) != nil || d.Origin != origin {
			continue
		}
		now := time.Now().UTC()
		change := monitor.Change{To: monitor.StateResolved, Resolution: monitor.AsIncident, By: by, Note: note, At: now}
		if err := st.Triage(ctx, inc.ID, change, s.triageTold(now)); err != nil {
			return err
		}
	}
	return nil
}

// trustRestored lets a witness go on with an older state, or with none.
func (a *app) trustRestored(ctx context.Context, note, by string) error {
	if strings.TrimSpace(note) == "" {
		return usage(errors.New("--note is missing: say why"))
	}
	if err := decider(by, note); err != nil {
		return err
	}
	s, err := a.load()
	if err != nil {
		return err
	}
	st, err := store.Open(ctx, s.cfg.State, store.Options{})
	if err != nil {
		return err
	}
	defer st.Close()
	if err := st.Act(ctx, monitor.Act{By: by, Action: "witness-trust", Subject: "restored", Detail: map[string]string{"note": note}}, time.Now()); err != nil {
		return err
	}
	if err := st.ForgetWitnessMark(ctx); err != nil {
		return err
	}
	fmt.Fprintln(a.stderr, "the state of the witness is taken as it is")
	return nil
}

func (a *app) witnessDisableCommand(use, short string, out bool) *cobra.Command {
	var note, by string
	c := &cobra.Command{Use: use + " ORIGIN --note TEXT", Short: short + "; no list changes that", Args: cobra.ExactArgs(1), RunE: func(c *cobra.Command, args []string) error {
		return a.decideWitness(c.Context(), "witness-"+use, use+"d", args[0], note, by, func(_ *setup, p *store.Witness, _ *store.Store) error {
			reason := ""
			if out {
				reason = by + ": " + note
			}
			return p.Disable(c.Context(), args[0], reason)
		})
	}}
	c.Flags().StringVar(&note, "note", "", "why")
	c.Flags().StringVar(&by, "by", whoami(), "who decides")
	return c
}

// decideWitness does what a person has decided of a log, and writes it down.
func (a *app) decideWitness(ctx context.Context, action, done, origin, note, by string, do func(*setup, *store.Witness, *store.Store) error) error {
	if strings.TrimSpace(note) == "" {
		return usage(errors.New("--note is missing: say why"))
	}
	if err := decider(by, note); err != nil {
		return err
	}
	return a.withPromises(ctx, func(s *setup, p *store.Witness) error {
		st, err := store.Open(ctx, s.cfg.State, store.Options{})
		if err != nil {
			return fmt.Errorf("the audit trail cannot be written, so that nothing was done: %w", err)
		}
		defer st.Close()
		if err := do(s, p, st); err != nil {
			return err
		}
		if err := st.Act(ctx, monitor.Act{By: by, Action: action, Subject: origin, Detail: map[string]string{"note": note}}, time.Now()); err != nil {
			return fmt.Errorf("it was done, but cannot be written into the audit trail: %w", err)
		}
		fmt.Fprintf(a.stderr, "%s: %s\n", safe(origin), done)
		return nil
	})
}
