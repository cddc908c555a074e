package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/sigwarden/sigwarden/checkpoint"
	"github.com/sigwarden/sigwarden/checkpoint/witness"
	"github.com/sigwarden/sigwarden/monitor"
	"github.com/sigwarden/sigwarden/monitor/config"
	"github.com/sigwarden/sigwarden/notify"
)

const (
	// maxSourceFiles bounds the files of one source.
	maxSourceFiles = 1000
	// askFor bounds one request to a source.
	askFor = 20 * time.Second
)

// sourceReader hears what others have seen, from one source.
type sourceReader struct {
	config.Source
	client *http.Client
	engine *monitor.Engine
	log    *slog.Logger
	failed map[string]bool // by log, to say so once
}

// listen reads other people's checkpoints until ctx ends.
func (s *setup) listen(ctx context.Context, engine *monitor.Engine, log *slog.Logger) {
	var wg sync.WaitGroup
	for _, src := range s.cfg.Sources {
		roots, err := certPool(src.TLSCA)
		if err != nil {
			log.Error("a source cannot be read", "source", src.Path, "error", err)
			continue
		}
		l := &sourceReader{src, notify.HTTPClient(roots), engine, log, map[string]bool{}}
		wg.Go(func() {
			for wait := time.Duration(0); pause(ctx, wait); wait = src.Every {
				l.round(ctx)
			}
		})
	}
	wg.Wait()
}

// round reads what the source has now.
func (l *sourceReader) round(ctx context.Context) {
	if l.File != "" {
		l.files(ctx)
		return
	}
	for _, f := range l.engine.Followed() {
		if l.Logs != nil && !slices.Contains(l.Logs, f.Name) {
			continue
		}
		address := l.Witness + "/" + witness.PathOf(f.Log.Origin()) + "/checkpoint"
		if l.Distributor != "" {
			address = l.Distributor + "/distributor/v0/logs/" + distributorID(f.Log.Origin()) + "/checkpoint.1"
		}
		raw, err := l.fetch(ctx, address)
		if err != nil && ctx.Err() == nil && !l.failed[f.Name] {
			l.log.Warn("a source does not tell what it has seen of a log; it is asked again", "source", l.Witness+l.Distributor, "log", f.Name, "error", err)
		}
		l.failed[f.Name] = err != nil
		if raw != nil {
			l.hear(ctx, raw, l.Witness+l.Distributor)
		}
	}
}

// fetch returns a checkpoint; nil where the source has none of the log.
func (l *sourceReader) fetch(ctx context.Context, address string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, askFor)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", "sigwarden")
	resp, err := l.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusNotFound {
		return nil, nil
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("was answered with %s", resp.Status)
	}
	raw, err := io.ReadAll(io.LimitReader(resp.Body, checkpoint.MaxSize+1))
	if err == nil && len(raw) > checkpoint.MaxSize {
		err = fmt.Errorf("the answer is larger than %d bytes", checkpoint.MaxSize)
	}
	return raw, err
}

func (l *sourceReader) files(ctx context.Context) {
	names, err := filepath.Glob(l.File)
	switch {
	case err == nil && len(names) == 0:
		err = errors.New("there is no such file")
	case err == nil && len(names) > maxSourceFiles:
		err = fmt.Errorf("of %d files the first %d are read; remove old ones", len(names), maxSourceFiles)
		names = names[:maxSourceFiles]
	}
	if err != nil && !l.failed[l.File] {
		l.log.Warn("files with other people's checkpoints", "source", l.File, "error", err)
	}
	l.failed[l.File] = err != nil
	for _, name := range names {
		raw, err := readNote(name)
		if err != nil {
			if !l.failed[name] {
				l.log.Warn("a checkpoint cannot be read", "file", name, "error", err)
			}
			l.failed[name] = true
			continue
		}
		delete(l.failed, name)
		l.hear(ctx, raw, "file "+filepath.Base(name)) // whatever log it is of
	}
}

func readNote(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, checkpoint.MaxSize+1))
	if err == nil && len(raw) > checkpoint.MaxSize {
		err = fmt.Errorf("is larger than %d bytes", checkpoint.MaxSize)
	}
	return raw, err
}

// hear compares one checkpoint. What no log of ours has signed is nothing to us: the
// source may have been made to show it.
func (l *sourceReader) hear(ctx context.Context, raw []byte, where string) {
	c, err := l.engine.Hear(ctx, raw, where)
	switch {
	case ctx.Err() != nil:
	case errors.Is(err, monitor.ErrNotCheckpoint):
		l.log.Debug("a source has shown what no log that is followed has signed", "source", where)
	case err != nil:
		l.log.Error("a checkpoint of a source could not be compared", "source", where, "error", err)
	case c.Verdict == monitor.HeardContradiction:
		l.log.Error("a source has seen another tree of a log than we have", "source", where, "log", c.Log, "incident", c.Incident)
	}
}
