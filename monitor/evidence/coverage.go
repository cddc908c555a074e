package evidence

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/sigwarden/sigwarden/checkpoint"
	"github.com/sigwarden/sigwarden/checkpoint/ledger"
)

// CoverageClaim is a stretch of a ledger.
type CoverageClaim struct {
	// Ledger is its origin; FromRow is the first row, ToRow the one behind the last.
	Ledger  string `json:"ledger"`
	FromRow uint64 `json:"from_row"`
	ToRow   uint64 `json:"to_row"`
	// Since and Until bound the time that it is about.
	Since time.Time `json:"since"`
	Until time.Time `json:"until"`
}

// Stretch is what evidence of coverage is made of.
type Stretch struct {
	Origin       string // of the log
	Ledger       string // origin of the ledger
	Since, Until time.Time
	Rows         [][]byte // one behind the other, as they are hashed
	// Head is a signed head of the ledger, Path the inclusion proof of the last row in
	// it, LedgerKey what signed it, as DER.
	Head      string
	Path      []checkpoint.Hash
	LedgerKey []byte
	// Note is the checkpoint of the log that the last row about it names as verified,
	// LogKey what signed it; both may be empty.
	Note   []byte
	LogKey []byte
	// Statement is what is said beside that.
	Statement any
}

// WriteCoverage writes evidence of what was watched in a time.
func WriteCoverage(w io.Writer, s Stretch) error {
	rows, _, err := ledger.Stretch(s.Rows)
	if err != nil {
		return err
	}
	if len(rows) == 0 {
		return errors.New("a stretch of no rows shows nothing")
	}
	last := rows[len(rows)-1].N
	claim := &CoverageClaim{Ledger: s.Ledger, FromRow: rows[0].N, ToRow: last + 1, Since: s.Since.UTC(), Until: s.Until.UTC()}
	return write(w, Claim{Claim: ClaimCoverage, Origin: s.Origin, Coverage: claim, Statement: s.Statement},
		member{fileLedger, append(bytes.Join(s.Rows, []byte("\n")), '\n')},
		member{fileLedgerTree, tlogProof(last, s.Path, s.Head)},
		member{fileLedgerKey, publicPEM(s.LedgerKey)},
		member{fileCheckpoint, s.Note}, member{fileLogKey, publicPEM(s.LogKey)})
}

func (v *verifier) coverage() error {
	if err := v.only([]string{fileCheckpoint, fileLogKey, fileLedgerKey}, fileClaim, fileLedger, fileLedgerTree, fileReadme); err != nil {
		return err
	}
	c := v.claim.Coverage
	if c == nil {
		return fmt.Errorf("%s names no stretch of a ledger", fileClaim)
	}
	text, whole := bytes.CutSuffix(v.files[fileLedger], []byte("\n"))
	if !whole {
		return fmt.Errorf("%s does not end with a line", fileLedger)
	}
	rows, hash, err := ledger.Stretch(bytes.Split(text, []byte("\n")))
	if err != nil {
		return fmt.Errorf("%s: %w", fileLedger, err)
	}
	first, last := rows[0], rows[len(rows)-1]
	if first.N != c.FromRow || last.N+1 != c.ToRow || !c.Since.Before(c.Until) {
		return fmt.Errorf("%s names other rows than those in %s, or an empty time", fileClaim, fileLedger)
	}
	index, path, raw, err := parseTlogProof(v.files[fileLedgerTree])
	if err != nil {
		return fmt.Errorf("%s: %w", fileLedgerTree, err)
	}
	if !ledger.IsOrigin(c.Ledger) {
		return fmt.Errorf("%s: %.100q is no ledger of sigwarden", fileClaim, c.Ledger)
	}
	log, head, err := v.ledgerHead(c.Ledger, raw)
	if err != nil {
		return err
	}
	if index != last.N {
		return fmt.Errorf("%s is about row %d, and the last one in %s is row %d", fileLedgerTree, index, fileLedger, last.N)
	}
	if err := head.VerifyInclusion(index, hash, path); err != nil {
		return fmt.Errorf("%s: the last row of %s is not at its place in that tree: %w", fileLedgerTree, fileLedger, err)
	}
	v.signedBy(log, "ledger", fileLedgerTree, raw)
	v.proven("the ledger's key signed ledger %s of %d rows with row %d in it, and by the hash that each row has of the one before it rows %d to %d, none of them changed and none missing in between; a ledger that holds others there contradicts itself", c.Ledger, head.Size(), last.N, first.N, last.N)
	return v.watched(rows)
}

// ledgerHead opens the head of a ledger with one of the keys that are trusted for it.
func (v *verifier) ledgerHead(origin string, raw []byte) (log trusted, head checkpoint.Checkpoint, err error) {
	none := v.trust
	none.Root = nil // it names no ledgers
	sets, err := none.sets(origin, v.trust.LedgerKeys, v.embedded(fileLedgerKey))
	if err != nil {
		return log, head, fmt.Errorf("key of the ledger: %w", err)
	}
	for _, set := range sets {
		if log, err = logOf(origin, set); err != nil {
			return log, head, err
		}
		if head, err = log.Open(raw); err == nil {
			return log, head, nil
		}
	}
	return log, head, fmt.Errorf("%s: %w", fileLedgerTree, err)
}

// watched says what the rows say of the log.
func (v *verifier) watched(rows []ledger.Row) error {
	if first := rows[0]; first.N > 0 {
		v.notProven("whether entries were missing already, or the log was halted, when these rows begin: rows before %d are not in the archive", first.N)
	}
	var head *ledger.Head
	for _, r := range rows {
		if r.Log != "" && ledger.LogKey(r.Log) != ledger.LogKey(v.claim.Origin) {
			continue
		}
		text, err := v.rowText(r, &head)
		if err != nil {
			return err
		}
		if text != "" {
			v.statement("row %d: %s", r.N, text)
		}
	}
	if err := v.untold(rows); err != nil {
		return err
	}
	v.statement("all of these rows, and that entries were read and matched, are the word of whoever has the ledger's key")
	return v.headOfLog(head)
}

// untoldAfter is how long a time must be of which no row tells, to be said: polls are some
// minutes apart.
const untoldAfter = 15 * time.Minute

// maxApart bounds what rows themselves say of how far apart polls may be: a log that has
// ended is asked once a day.
const maxApart = 28 * time.Hour

// untold says of which times no row tells whether the log was watched.
func (v *verifier) untold(rows []ledger.Row) error {
	type told struct {
		since, until time.Time
		apart        time.Duration
	}
	var list []told
	for _, r := range rows {
		if r.Log == "" || ledger.LogKey(r.Log) != ledger.LogKey(v.claim.Origin) {
			continue
		}
		switch r.Kind {
		case ledger.KindSpan:
			s, err := ledger.Read[ledger.Span](r)
			if err != nil {
				return err
			}
			list = append(list, told{s.Since, s.Until, time.Duration(s.PauseAfter * float64(time.Second))})
		case ledger.KindPause:
			p, err := ledger.Read[ledger.Pause](r)
			if err != nil {
				return err
			}
			list = append(list, told{p.Since, p.Until, 0})
		}
	}
	slices.SortFunc(list, func(a, b told) int { return a.since.Compare(b.since) })
	c := v.claim.Coverage
	// The holes between rows count as they are, and are said as far as they are in the time.
	// What is before the first row and behind the last has no end: there the polls next to it
	// are what counts.
	at, apart := time.Time{}, time.Duration(0)
	for i, t := range append(list, told{c.Until.AddDate(1000, 0, 0), c.Until, 0}) {
		longest := max(untoldAfter, min(max(apart, t.apart), maxApart))
		near := i == 0 && t.since.Before(c.Until) && t.since.Sub(c.Since) <= longest || i == len(list) && at.After(c.Since) && c.Until.Sub(at) <= longest
		if t.since.Sub(at) > longest && !near {
			from, to := at, t.since
			if from.Before(c.Since) {
				from = c.Since
			}
			if to.After(c.Until) {
				to = c.Until
			}
			if from.Before(to) {
				v.notProven("whether anybody was watching from %s to %s: no row tells of that time", stamp(from), stamp(to))
			}
		}
		if t.until.After(at) {
			at, apart = t.until, t.apart
		}
	}
	return nil
}

// rowText says what a row says; head becomes the newest head that rows name.
func (v *verifier) rowText(r ledger.Row, head **ledger.Head) (string, error) {
	switch r.Kind {
	case ledger.KindSpan:
		s, err := ledger.Read[ledger.Span](r)
		if err != nil {
			return "", err
		}
		*head = &s.Head
		return fmt.Sprintf("watched from %s to %s; %d entries were read (%s), with watchlist %.12s and trusted root %.12s; verified head of size %d, root %x", stamp(s.Since), stamp(s.Until), s.Entries(), ranges(s.Read), s.WatchSet, s.TrustRoot, s.Head.Size, s.Head.Root[:]), nil
	case ledger.KindPause:
		p, err := ledger.Read[ledger.Pause](r)
		return fmt.Sprintf("NOT watched from %s to %s: %s %.200q", stamp(p.Since), stamp(p.Until), p.Reason, p.Error), err
	case ledger.KindGap, ledger.KindFilled:
		g, err := ledger.Read[ledger.Gap](r)
		what := "could NOT be read"
		if r.Kind == ledger.KindFilled {
			what = "were read after all"
		}
		return fmt.Sprintf("entries %d to %d %s: %s", g.From, max(g.To, 1)-1, what, g.Reason), err
	case ledger.KindRestored:
		b, err := ledger.Read[ledger.Restored](r)
		return fmt.Sprintf("THE STATE WAS AN OLDER COPY OF ITSELF: rows from %d on, which had been signed, were lost", b.Kept), err
	case ledger.KindHalted, ledger.KindResumed, ledger.KindBaseline, ledger.KindRules, ledger.KindTrust, ledger.KindDeleted:
		return fmt.Sprintf("%s: %.400s", r.Kind, r.Body), nil
	}
	return "", nil
}

func ranges(list []ledger.Range) string {
	if len(list) == 0 {
		return "none"
	}
	text := fmt.Sprintf("%d to %d", list[0].From, max(list[0].To, 1)-1)
	if len(list) > 1 {
		text += fmt.Sprintf(" and %d ranges more", len(list)-1)
	}
	return text
}

// headOfLog holds the checkpoint in the archive against the head that the rows name.
func (v *verifier) headOfLog(head *ledger.Head) error {
	raw := v.files[fileCheckpoint]
	if raw != nil && head == nil {
		return fmt.Errorf("%s is there, and no row names a head of the log", fileCheckpoint)
	}
	if raw == nil || head == nil {
		v.notProven("that the log signed the heads named: no checkpoint of it is in the archive")
		return nil
	}
	// A tree of Rekor v1 is one log, also where its server called itself something else then.
	first, _, _ := bytes.Cut(raw, []byte("\n"))
	origin := string(first)
	if ledger.LogKey(origin) != ledger.LogKey(v.claim.Origin) {
		return fmt.Errorf("%s is of %.100q, and %s names %.100q", fileCheckpoint, origin, fileClaim, v.claim.Origin)
	}
	if v.noKey != nil {
		v.notProven("that the log signed the head of size %d: give its key to check the checkpoint in the archive (%v)", head.Size, v.noKey)
		return nil
	}
	log, err := logOf(origin, v.keys)
	if err != nil {
		return err
	}
	c, err := log.Open(raw)
	if err != nil {
		return fmt.Errorf("%s: %w", fileCheckpoint, err)
	}
	v.signedBy(log, "log", fileCheckpoint, raw)
	if c.Size() != head.Size || c.Root() != checkpoint.Hash(head.Root) {
		return fmt.Errorf("%s is not the one that the last row about the log names", fileCheckpoint)
	}
	v.proven("the log's key signed the last of these heads, of %d entries with root %x: whoever has another tree of this size holds a fork", c.Size(), head.Root[:])
	v.cosignatures(raw)
	return nil
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
