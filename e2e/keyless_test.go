package e2e

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sigwarden/sigwarden/monitor/attest"
)

// provider is an OpenID provider on loopback: what a real Fulcio asks of one.
type provider struct {
	*httptest.Server
	key *rsa.PrivateKey
}

func newProvider(t *testing.T) *provider {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	p := &provider{key: key}
	mux := http.NewServeMux()
	p.Server = httptest.NewServer(mux)
	t.Cleanup(p.Close)
	answer := func(w http.ResponseWriter, v any) {
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(v)
	}
	mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, map[string]any{"issuer": p.URL, "jwks_uri": p.URL + "/keys", "authorization_endpoint": p.URL + "/auth", "token_endpoint": p.URL + "/token", "response_types_supported": []string{"code"}, "subject_types_supported": []string{"public"}, "id_token_signing_alg_values_supported": []string{"RS256"}})
	})
	mux.HandleFunc("/keys", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, map[string]any{"keys": []any{map[string]string{"kty": "RSA", "alg": "RS256", "use": "sig", "kid": "k", "n": base64.RawURLEncoding.EncodeToString(key.N.Bytes()), "e": base64.RawURLEncoding.EncodeToString(big.NewInt(int64(key.E)).Bytes())}}})
	})
	return p
}

// token makes an identity token for an address.
func (p *provider) token(t *testing.T, address string) string {
	t.Helper()
	part := func(v any) string {
		doc, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return base64.RawURLEncoding.EncodeToString(doc)
	}
	now := time.Now().Unix()
	text := part(map[string]string{"alg": "RS256", "typ": "JWT", "kid": "k"}) + "." + part(map[string]any{"iss": p.URL, "aud": "sigstore", "sub": "1234", "email": address, "email_verified": true, "iat": now, "exp": now + 600})
	sum := sha256.Sum256([]byte(text))
	sig, err := rsa.SignPKCS1v15(rand.Reader, p.key, crypto.SHA256, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	return text + "." + base64.RawURLEncoding.EncodeToString(sig)
}

// fulcio starts a real Fulcio that believes a provider, and returns its address and its
// root.
func fulcio(t *testing.T, dir string, p *provider) (address, root string) {
	t.Helper()
	config := filepath.Join(dir, "fulcio.yaml")
	if err := os.WriteFile(config, fmt.Appendf(nil, "oidc-issuers:\n  %[1]s:\n    issuer-url: %[1]s\n    client-id: sigstore\n    type: email\n", p.URL), 0o600); err != nil {
		t.Fatal(err)
	}
	port := freePort(t)
	start(t, program(t, "fulcio", "fulcio"), "serve", "--host=127.0.0.1", fmt.Sprintf("--port=%d", port), "--grpc-host=127.0.0.1", fmt.Sprintf("--grpc-port=%d", freePort(t)), fmt.Sprintf("--metrics-port=%d", freePort(t)), "--ca=ephemeralca", "--ct-log-url=", "--config-path="+config)
	address = fmt.Sprintf("http://127.0.0.1:%d", port)
	var bundle struct {
		Chains []struct{ Certificates []string }
	}
	until(t, "Fulcio answers", 30*time.Second, func() bool {
		resp, err := http.Get(address + "/api/v2/trustBundle")
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
		return err == nil && json.Unmarshal(text, &bundle) == nil && len(bundle.Chains) > 0
	})
	root = filepath.Join(dir, "fulcio.pem")
	if err := os.WriteFile(root, []byte(strings.Join(bundle.Chains[0].Certificates, "\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	return address, root
}

// trustedRoot makes a trusted_root.json of an authority for certificates and one for
// timestamps.
func trustedRoot(t *testing.T, dir, root, chain string) string {
	t.Helper()
	authority := func(path string) any {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var certs []any
		for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
			certs = append(certs, map[string][]byte{"rawBytes": block.Bytes})
		}
		return map[string]any{"subject": map[string]string{"organization": "acme", "commonName": "test"}, "uri": "http://127.0.0.1", "certChain": map[string]any{"certificates": certs}, "validFor": map[string]string{"start": "2020-01-01T00:00:00Z"}}
	}
	doc, err := json.Marshal(map[string]any{"mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1", "certificateAuthorities": []any{authority(root)}, "timestampAuthorities": []any{authority(chain)}})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "trusted_root.json")
	if err := os.WriteFile(path, doc, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestKeyless: a report is signed by a certificate of a real Fulcio, with the time of a
// real authority, and verifies by whose it is.
func TestKeyless(t *testing.T) {
	dir := t.TempDir()
	p := newProvider(t)
	authority, root := fulcio(t, dir, p)
	stamps, chain := timestampServer(t, dir)
	token := filepath.Join(dir, "token")
	if err := os.WriteFile(token, []byte(p.token(t, "reports@acme.example")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	config := monitored(t, dir, fmt.Sprintf("signing: {keyless: {url: %s, token: file:token}, timestamp: {url: %s, ca: tsa.pem}}\n", authority, stamps))
	report := filepath.Join(dir, "report.md")
	if _, code := sigwarden(t, config, "report", "--since", "1d", "-o", report, "--sign"); code != 0 {
		t.Fatalf("status %d", code)
	}
	verify := func(identity, issuer string) (string, int) {
		return sigwarden(t, config, "report", "verify", report, "--certificate-identity", identity, "--certificate-oidc-issuer", issuer, "--signer-root", root, "--timestamp-ca", chain)
	}
	if out, code := verify("reports@acme.example", p.URL); code != 0 || !strings.Contains(out, "proven: reports@acme.example, whom "+p.URL+" has vouched for, signed this file") {
		t.Errorf("status %d: %s", code, out)
	}
	if _, code := verify("others@acme.example", p.URL); code != 4 {
		t.Errorf("somebody else: status %d", code)
	}
	if _, code := verify("reports@acme.example", "https://issuer.example"); code != 4 {
		t.Errorf("another issuer: status %d", code)
	}
	bundle := report + ".sigstore.json"
	if out, ok := cosign(t, dir, report, "--bundle", bundle, "--certificate-identity", "reports@acme.example", "--certificate-oidc-issuer", p.URL, "--type", attest.ReportType, "--use-signed-timestamps", "--trusted-root", trustedRoot(t, dir, root, chain), "--insecure-ignore-sct"); !ok {
		t.Errorf("cosign refuses it: %s", out)
	}
	// A token that nobody believes.
	if err := os.WriteFile(token, []byte(newProvider(t).token(t, "reports@acme.example")), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, code := sigwarden(t, config, "report", "--since", "1d", "-o", report, "--sign"); code != 1 {
		t.Errorf("a token of another provider: status %d", code)
	}
}
