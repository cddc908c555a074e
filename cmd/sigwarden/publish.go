package main

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/sigwarden/sigwarden/checkpoint"
	"github.com/sigwarden/sigwarden/checkpoint/ledger"
	"github.com/sigwarden/sigwarden/monitor"
	"github.com/sigwarden/sigwarden/monitor/rekor"
	"github.com/sigwarden/sigwarden/monitor/store"
	"github.com/sigwarden/sigwarden/watchlist/entry"
)

// publishFor bounds one submission: a log answers when the entry is in a checkpoint.
const publishFor = time.Minute

// errNotYet says that the log to publish in has not answered yet.
var errNotYet = errors.New("has not answered yet, or is not followed")

// errUnproven says that a log took an entry, and did not prove it.
var errUnproven = errors.New("the log answered that it took the entry, and did not prove it; it is asked again when the next head is due")

// errNotECDSA says that heads cannot be published with the signing key.
var errNotECDSA = errors.New("heads are put into a log with a signing key of ECDSA on P-256, and signing.key is another one")

// checkPublish looks at what only the parts together show.
func (s *setup) checkPublish() error {
	if s.cfg.Publish.Log == "" {
		return nil
	}
	key, err := s.signingKey(true)
	if err != nil {
		return err
	}
	if _, ok := key.(*ecdsa.PrivateKey); !ok {
		return errNotECDSA
	}
	return nil
}

// publishHeads puts the newest signed head of the ledger into a log every now and then:
// then nobody, its owner among them, can take it back.
func (s *setup) publishHeads(ctx context.Context, st *store.Store, engine *monitor.Engine, log *slog.Logger) {
	began := time.Now()
	for {
		wait := s.cfg.Publish.Every
		last, err := st.LastPublished(ctx)
		if err == nil {
			if due := time.Until(last.Add(wait)); due > 0 {
				wait = due
			} else if err = s.publishHead(ctx, st, engine, log); err != nil {
				if !errors.Is(err, errUnproven) {
					wait = min(wait, 10*time.Minute)
				}
				if first := time.Since(began) < time.Minute; first && errors.Is(err, errNotYet) {
					wait, err = 5*time.Second, nil // it is about to
				}
			}
		}
		if err != nil && ctx.Err() == nil {
			log.Error("the head of the ledger could not be put into a log; that is tried again", "log", s.cfg.Publish.Log, "in", wait, "error", err)
		}
		if !pause(ctx, wait) {
			return
		}
	}
}

func (s *setup) publishHead(ctx context.Context, st *store.Store, engine *monitor.Engine, log *slog.Logger) error {
	to, address, err := s.publishTo(ctx, st, engine)
	if err != nil {
		return err
	}
	if err := s.checkPublish(); err != nil {
		return err
	}
	head, err := s.signLedger(ctx, st)
	if err != nil || head.Size == 0 {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, publishFor)
	defer cancel()
	done, err := s.submitHead(ctx, to, address, head)
	if errors.Is(err, errUnproven) {
		// Another one would be refused as the same, or make another entry of it.
		return errors.Join(err, st.PublishTried(context.WithoutCancel(ctx), head, time.Now()))
	}
	if err != nil {
		return err
	}
	log.Info("the head of the ledger is in a log", "log", to.Origin(), "index", done.Index, "rows", head.Size)
	return st.Published(ctx, head, done, time.Now())
}

// publishTo finds the log to write to among those that are followed.
func (s *setup) publishTo(ctx context.Context, st *store.Store, engine *monitor.Engine) (*checkpoint.Log, string, error) {
	name, address := s.cfg.Publish.Log, s.cfg.Publish.URL
	states, err := st.States(ctx)
	if err != nil {
		return nil, "", err
	}
	for _, state := range states {
		if state.Name != name && state.Origin != name {
			continue
		}
		trusted := engine.Trusted()
		at := slices.IndexFunc(trusted, func(t monitor.Trusted) bool { return t.Log.Origin() == state.Origin })
		if at < 0 {
			continue // one of that name that is followed no more
		}
		if state.Type != "rekor-v2" {
			return nil, "", fmt.Errorf("ledger.publish.log: %s is of type %s; want a log of Rekor v2", name, state.Type)
		}
		if address == "" {
			address = state.URL
		}
		return trusted[at].Log, address, nil
	}
	return nil, "", fmt.Errorf("ledger.publish.log: %q %w", name, errNotYet)
}

// submitHead writes a signed head, as a hashedrekord, and proves that it is in the log.
func (s *setup) submitHead(ctx context.Context, to *checkpoint.Log, address string, head store.SignedHead) (ledger.Published, error) {
	key, err := s.signingKey(false)
	if err != nil {
		return ledger.Published{}, err
	}
	digest := sha256.Sum256([]byte(head.Note))
	signature, err := key.Sign(rand.Reader, digest[:], crypto.SHA256)
	if err != nil {
		return ledger.Published{}, err
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return ledger.Published{}, err
	}
	client, err := httpClient(s.cfg.Publish.TLSCA)
	if err != nil {
		return ledger.Published{}, err
	}
	got, err := rekor.Submit(ctx, client, address, digest, signature, der)
	if err != nil {
		return ledger.Published{}, err
	}
	done, err := proveSubmitted(to, got, head, digest)
	if err != nil {
		err = fmt.Errorf("%w: %w", errUnproven, err)
	}
	return done, err
}

// proveSubmitted checks that what a log has answered is our entry, in its signed tree.
func proveSubmitted(to *checkpoint.Log, got rekor.Submitted, head store.SignedHead, digest [32]byte) (ledger.Published, error) {
	facts, err := entry.Decode(got.Leaf)
	if err != nil || !slices.Contains(facts.Digests, "sha256:"+hex.EncodeToString(digest[:])) {
		return ledger.Published{}, errors.New("the log answered with another entry than the one that was submitted")
	}
	c, err := to.Open(got.Note)
	if err != nil {
		return ledger.Published{}, err
	}
	path := make([]checkpoint.Hash, len(got.Path))
	for i, h := range got.Path {
		path[i] = checkpoint.Hash(h)
	}
	leaf := checkpoint.LeafHash(got.Leaf)
	if err := c.VerifyInclusion(got.Index, leaf, path); err != nil {
		return ledger.Published{}, fmt.Errorf("the log answered with a proof that does not hold: %w", err)
	}
	signed, err := headOfNote(head.Note)
	return ledger.Published{Head: signed, Origin: to.Origin(), Index: got.Index, LeafHash: hex.EncodeToString(leaf[:])}, err
}

// headOfNote reads size and root of a head that we have signed ourselves.
func headOfNote(note string) (ledger.Head, error) {
	_, size, root, err := checkpoint.ParseText(textOf(note))
	return ledger.Head{Size: size, Root: checkpoint.HexHash(root)}, err
}
