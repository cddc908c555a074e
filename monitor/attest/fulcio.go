package attest

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// maxIssued bounds the answer of a certificate authority.
const maxIssued = 256 << 10

// Keyless asks a Fulcio for a certificate about an identity token, for a key that is made
// for it and never stored. What is signed with it can be verified later only with a
// timestamp from within its ten minutes.
func Keyless(ctx context.Context, client *http.Client, address, token string) (Signer, error) {
	subject, err := subjectOf(token)
	if err != nil {
		return Signer{}, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Signer{}, err
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return Signer{}, err
	}
	proof := sha256.Sum256([]byte(subject))
	sig, err := ecdsa.SignASN1(rand.Reader, key, proof[:])
	if err != nil {
		return Signer{}, err
	}
	body, err := json.Marshal(map[string]any{
		"credentials": map[string]string{"oidcIdentityToken": token},
		"publicKeyRequest": map[string]any{
			"publicKey":         map[string]string{"algorithm": "ECDSA", "content": string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))},
			"proofOfPossession": sig,
		},
	})
	if err != nil {
		return Signer{}, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimSuffix(address, "/")+"/api/v2/signingCert", bytes.NewReader(body))
	if err != nil {
		return Signer{}, err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		return Signer{}, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxIssued+1))
	if err != nil {
		return Signer{}, err
	}
	if len(answer) > maxIssued {
		return Signer{}, fmt.Errorf("the certificate authority answered with more than %d bytes", maxIssued)
	}
	if resp.StatusCode/100 != 2 {
		return Signer{}, fmt.Errorf("the certificate authority answered %s: %.200q", resp.Status, answer)
	}
	cert, err := issued(answer)
	if err != nil {
		return Signer{}, err
	}
	if !key.PublicKey.Equal(cert.PublicKey) {
		return Signer{}, errors.New("the certificate authority answered with a certificate of another key")
	}
	return Signer{Key: key, Certificate: cert.Raw}, nil
}

// issued takes the certificate out of the answer, with an SCT in it or beside it.
func issued(answer []byte) (*x509.Certificate, error) {
	type chain struct {
		Chain struct {
			Certificates []string `json:"certificates"`
		} `json:"chain"`
	}
	var doc struct {
		Embedded chain `json:"signedCertificateEmbeddedSct"`
		Detached chain `json:"signedCertificateDetachedSct"`
	}
	if err := json.Unmarshal(answer, &doc); err != nil {
		return nil, fmt.Errorf("the answer of the certificate authority: %w", err)
	}
	list := append(doc.Embedded.Chain.Certificates, doc.Detached.Chain.Certificates...)
	if len(list) == 0 {
		return nil, errors.New("the certificate authority answered without a certificate")
	}
	block, _ := pem.Decode([]byte(list[0]))
	if block == nil {
		return nil, errors.New("the certificate authority answered with a certificate that is not PEM")
	}
	return x509.ParseCertificate(block.Bytes)
}

// subjectOf reads what the holder of an identity token has to sign: its e-mail address if
// it has one, else its subject. The token is verified by the authority.
func subjectOf(token string) (string, error) {
	parts := strings.Split(strings.TrimSpace(token), ".")
	if len(parts) != 3 {
		return "", errors.New("identity token: not a JSON Web Token")
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return "", errors.New("identity token: not a JSON Web Token")
	}
	var claims struct {
		Subject string `json:"sub"`
		Email   string `json:"email"`
	}
	if err := json.Unmarshal(payload, &claims); err != nil || claims.Subject == "" {
		return "", errors.New("identity token: names no subject")
	}
	if claims.Email != "" {
		return claims.Email, nil
	}
	return claims.Subject, nil
}
