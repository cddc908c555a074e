package witness

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/sigwarden/sigwarden/checkpoint"
)

// StaleError is returned by Submit where the witness has seen another size of the log
// than the request begins with.
type StaleError struct{ Size uint64 }

func (e *StaleError) Error() string {
	return fmt.Sprintf("the witness has seen size %d", e.Size)
}

// ErrUnwilling is returned by Submit for an answer that is no cosignature.
var ErrUnwilling = errors.New("the witness did not co-sign")

// Submit asks another witness to co-sign, at the address of its add-checkpoint, and
// returns the lines of its keys that verify. The client must refuse redirects: one would
// make the request another one.
func Submit(ctx context.Context, client *http.Client, address string, req Request, keys ...*Verifier) (lines string, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader(req.Format()))
	if err != nil {
		return "", err
	}
	r.Header.Set("Content-Type", "text/plain; charset=utf-8")
	r.Header.Set("User-Agent", "sigwarden")
	resp, err := client.Do(r)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, checkpoint.MaxSize+1))
	if err != nil {
		return "", err
	}
	if len(body) > checkpoint.MaxSize {
		return "", fmt.Errorf("%w: its answer is larger than %d bytes", ErrUnwilling, checkpoint.MaxSize)
	}
	kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	switch {
	case resp.StatusCode == http.StatusConflict && kind == "text/x.tlog.size":
		// SPEC: tlog-witness: without that type the answer says nothing of a size.
		text := strings.TrimSuffix(string(body), "\n")
		size, err := strconv.ParseUint(text, 10, 63)
		if err != nil || strconv.FormatUint(size, 10) != text {
			return "", fmt.Errorf("%w: it answered 409 with %.30q for a size", ErrUnwilling, text)
		}
		return "", &StaleError{size}
	case resp.StatusCode != http.StatusOK:
		return "", fmt.Errorf("%w: it answered %d %s: %.100q", ErrUnwilling, resp.StatusCode, http.StatusText(resp.StatusCode), body)
	}
	// Each line alone: the note may have one of the same key, from before.
	text, _, _ := bytes.Cut(req.Note, []byte("\n\n"))
	for line := range strings.Lines(string(body)) {
		line = strings.TrimSuffix(line, "\n") + "\n"
		if len(Cosignatures(append(append(bytes.Clone(text), "\n\n"...), line...), keys...)) > 0 {
			lines += line
		}
	}
	if lines == "" {
		return "", fmt.Errorf("%w: none of the lines of its answer is a cosignature by a key of it", ErrUnwilling)
	}
	return lines, nil
}

// Distribute puts a checkpoint with the cosignature of one witness to a distributor.
// logID is the distributor's name for the log, note the log's checkpoint, line the one
// of the witness.
func Distribute(ctx context.Context, client *http.Client, distributor, logID, witness string, note []byte, line string) error {
	address := distributor + "/distributor/v0/logs/" + logID + "/byWitness/" + url.PathEscape(witness) + "/checkpoint"
	r, err := http.NewRequestWithContext(ctx, http.MethodPut, address, bytes.NewReader(withLines(note, line)))
	if err != nil {
		return err
	}
	r.Header.Set("User-Agent", "sigwarden")
	resp, err := client.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1000))
	if err == nil && (resp.StatusCode < 200 || resp.StatusCode > 299) {
		err = fmt.Errorf("it answered %d %s: %.100q", resp.StatusCode, http.StatusText(resp.StatusCode), body)
	}
	return err
}
