package main

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"syscall"
	"time"

	"github.com/gofrs/flock"
	"github.com/sigstore/sigstore/pkg/signature/kms/cliplugin"
	"github.com/sigstore/sigstore/pkg/signature/options"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"github.com/sigwarden/sigwarden/checkpoint/witness"
	"github.com/sigwarden/sigwarden/monitor/config"
)

// signFor bounds one signature of a key that is elsewhere.
const signFor = 20 * time.Second

// cosigner makes a key of the configuration ready to sign.
func (a *app) cosigner(k config.WitnessKey) (*witness.Cosigner, error) {
	var s witness.Signer
	var err error
	switch {
	case k.Agent != "":
		s, err = newAgentSigner(a.getenv("SSH_AUTH_SOCK"), k.Agent)
	case k.Plugin != "":
		s, err = newPluginSigner(k.Plugin)
	default:
		return witness.ParseSecret(k.Secret.Reveal())
	}
	if err != nil {
		return nil, err
	}
	return witness.NewCosigner(k.Name, witness.Ed25519, s)
}

// checkWitnessKeys reads the signing keys that are texts; others are asked for when they
// are needed.
func (s *setup) checkWitnessKeys() (issues []config.Issue) {
	seen := map[witness.Algorithm]bool{}
	for _, k := range s.cfg.Witness.Keys {
		a := witness.Ed25519
		if k.Agent == "" && k.Plugin == "" {
			c, err := witness.ParseSecret(k.Secret.Reveal())
			if err != nil {
				issues = append(issues, s.cfg.At(k.Path, err.Error()))
				continue
			}
			a = c.Algorithm()
		}
		if seen[a] {
			issues = append(issues, s.cfg.At(k.Path, fmt.Sprintf("a second key of algorithm %s: a witness has one of each at most", a)))
		}
		seen[a] = true
	}
	if w := &s.cfg.Witness; w.SignSubtree && len(issues) == 0 && !seen[witness.MLDSA44] {
		issues = append(issues, s.cfg.At("witness.sign_subtree", "subtrees are signed with a key of ML-DSA-44, and there is none"))
	}
	return issues
}

// agentSigner is an Ed25519 key that an SSH agent holds. SSH signs messages as they are,
// so that a signature of it is one of the cosignature.
type agentSigner struct {
	socket string
	key    ssh.PublicKey
	public ed25519.PublicKey
}

func newAgentSigner(socket, fingerprint string) (*agentSigner, error) {
	if socket == "" {
		return nil, errors.New("SSH_AUTH_SOCK is not set: no SSH agent can be asked")
	}
	s := &agentSigner{socket: socket}
	ctx, cancel := context.WithTimeout(context.Background(), signFor)
	defer cancel()
	err := s.ask(ctx, func(a agent.ExtendedAgent) error {
		keys, err := a.List()
		if err != nil {
			return err
		}
		for _, k := range keys {
			if ssh.FingerprintSHA256(k) != fingerprint {
				continue
			}
			parsed, err := ssh.ParsePublicKey(k.Blob)
			if err != nil {
				return err
			}
			public, ok := parsed.(ssh.CryptoPublicKey)
			if !ok || parsed.Type() != ssh.KeyAlgoED25519 {
				return fmt.Errorf("key %s in the SSH agent is of type %s; a witness signs with ssh-ed25519", fingerprint, parsed.Type())
			}
			s.key, s.public = parsed, public.CryptoPublicKey().(ed25519.PublicKey)
			return nil
		}
		return fmt.Errorf("the SSH agent holds no key with the fingerprint %s (`ssh-add -l` lists its keys)", fingerprint)
	})
	return s, err
}

func (s *agentSigner) ask(ctx context.Context, do func(agent.ExtendedAgent) error) error {
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", s.socket)
	if err != nil {
		return fmt.Errorf("SSH agent: %w", err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	return do(agent.NewClient(conn))
}

func (s *agentSigner) Public() []byte { return s.public }

func (s *agentSigner) Sign(ctx context.Context, message []byte) (raw []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, signFor)
	defer cancel()
	err = s.ask(ctx, func(a agent.ExtendedAgent) error {
		sig, err := a.Sign(s.key, message)
		if err == nil {
			raw = sig.Blob
		}
		return err
	})
	return raw, err
}

// pluginSigner is an Ed25519 key that a program of sigstore's KMS plugin protocol has:
// sigstore-kms-SCHEME in PATH.
type pluginSigner struct {
	resource string
	public   ed25519.PublicKey
}

func newPluginSigner(resource string) (*pluginSigner, error) {
	s := &pluginSigner{resource: resource}
	ctx, cancel := context.WithTimeout(context.Background(), signFor)
	defer cancel()
	client, err := cliplugin.LoadSignerVerifier(ctx, resource, crypto.Hash(0))
	if err != nil {
		return nil, fmt.Errorf("plugin %s: %w", resource, err)
	}
	key, err := client.PublicKey(options.WithContext(ctx))
	if err != nil {
		return nil, fmt.Errorf("plugin %s: %w", resource, err)
	}
	var ok bool
	if s.public, ok = key.(ed25519.PublicKey); !ok {
		return nil, fmt.Errorf("plugin %s: its key is a %T; a witness signs with Ed25519", resource, key)
	}
	return s, nil
}

func (s *pluginSigner) Public() []byte { return s.public }

func (s *pluginSigner) Sign(ctx context.Context, message []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, signFor)
	defer cancel()
	client, err := cliplugin.LoadSignerVerifier(ctx, s.resource, crypto.Hash(0))
	if err != nil {
		return nil, err
	}
	return client.SignMessage(bytes.NewReader(message), options.WithContext(ctx))
}

// lockKey makes this process the only one on this machine that signs with a key, whatever
// its state is: by the file that the key is in, whoever mounts it where, and by a name that
// only one process can have, wherever the key is and whatever it is called there.
func lockKey(k config.WitnessKey, v *witness.Verifier) (release func(), err error) {
	busy := fmt.Errorf("another process signs with the key %s (%08x)", v.Name(), v.KeyHash())
	release = func() {}
	if k.File != "" {
		lock := flock.New(k.File, flock.SetFlag(os.O_RDONLY))
		ok, err := lock.TryLock()
		if err != nil {
			return nil, fmt.Errorf("locking the key file %s: %w", k.File, err)
		}
		if !ok {
			return nil, busy
		}
		release = func() { lock.Unlock() }
	}
	if runtime.GOOS != "linux" {
		return release, nil // the state is locked all the same
	}
	l, err := net.Listen("unix", "@sigwarden-witness-"+v.Fingerprint())
	if err != nil {
		release()
		if errors.Is(err, syscall.EADDRINUSE) {
			err = busy
		}
		return nil, err
	}
	file := release
	return func() { l.Close(); file() }, nil
}
