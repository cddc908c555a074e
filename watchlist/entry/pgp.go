package entry

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"

	"github.com/ProtonMail/go-crypto/openpgp/armor"
	pgperrors "github.com/ProtonMail/go-crypto/openpgp/errors"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// maxPGP bounds a key ring.
const maxPGP = 256 << 10

var armorStart = []byte("-----BEGIN PGP")

// addPGP reads base64 of a PGP key ring: one or several armored blocks, or
// binary. Each primary key is an identity with its subkeys and the e-mail
// addresses of its user ids. Signatures in the ring are not verified: the log
// has done that, and a name too many is better than one too few.
func (d *Decoder) addPGP(where place, v value) error {
	ring, err := d.keyBytes(where, v, maxPGP)
	if err != nil {
		return err
	}
	before := len(d.facts.Identities)
	if !bytes.HasPrefix(bytes.TrimSpace(ring), armorStart) {
		err = d.addPackets(bytes.NewReader(ring))
	} else {
		for rest := bytes.NewReader(ring); ; {
			// Decode reads ahead; each block ends where the next one begins.
			block, decodeErr := armor.Decode(rest)
			if decodeErr != nil {
				if !errors.Is(decodeErr, io.EOF) {
					err = join(err, decodeErr)
				}
				break
			}
			err = join(err, d.addPackets(block.Body))
			at := bytes.Index(ring[1:], armorStart)
			if at < 0 {
				break
			}
			ring = ring[1+at:]
			rest = bytes.NewReader(ring)
		}
	}
	if len(d.facts.Identities) == before {
		err = join(err, errors.New("no public key in it"))
	}
	if err != nil {
		return fmt.Errorf("%s: %w: %w", where, errKey, err)
	}
	return nil
}

// addPackets reads keys and user ids; what they are compressed into is not
// undone. A packet that cannot be read hides none of the others.
func (d *Decoder) addPackets(r io.Reader) error {
	packets := packet.NewOpaqueReader(r)
	var id *Identity
	var errs error
	for n := 0; ; n++ {
		raw, err := packets.Next()
		if err == io.EOF {
			return errs
		}
		if err != nil {
			return join(errs, err)
		}
		if n == 10*maxKeys {
			return join(errs, fmt.Errorf("more than %d packets", n))
		}
		primary := raw.Tag == pgpPublicKey || raw.Tag == pgpSecretKey
		if !primary && raw.Tag != pgpPublicSubkey && raw.Tag != pgpSecretSubkey && raw.Tag != pgpUserID {
			continue
		}
		if primary {
			if len(d.facts.Identities) >= maxKeys {
				return join(errs, fmt.Errorf("more than %d keys", maxKeys))
			}
			// Also for a key of a kind that is not understood: its user ids are its
			// own, and not those of the key before it.
			id = d.identity()
			id.Format = "pgp"
		}
		if id == nil {
			errs = join(errs, errors.New("a subkey or user id without its key"))
			continue
		}
		p, err := raw.Parse()
		var unsupported pgperrors.UnsupportedError
		if err != nil && !errors.As(err, &unsupported) {
			errs = join(errs, err)
		}
		switch p := p.(type) {
		case *packet.PublicKey:
			err = id.addPGPKey(p)
		case *packet.PrivateKey:
			err = id.addPGPKey(&p.PublicKey)
		case *packet.UserId:
			switch {
			case !isMail(p.Email):
			case len(id.Subjects) == maxSubjects:
				err = fmt.Errorf("more than %d user ids", maxSubjects)
			default:
				id.Subjects = append(id.Subjects, Subject{Email, p.Email})
			}
		default:
			err = nil // booked above
		}
		errs = join(errs, err)
	}
}

// Tags of packets (RFC 9580, 5).
const (
	pgpSecretKey, pgpPublicKey, pgpSecretSubkey, pgpUserID, pgpPublicSubkey = 5, 6, 7, 13, 14
)

// addPGPKey adds the fingerprint of a key, where Rekor gives one.
func (id *Identity) addPGPKey(key *packet.PublicKey) error {
	switch key.PubKeyAlgo {
	case packet.PubKeyAlgoRSA, packet.PubKeyAlgoRSASignOnly, packet.PubKeyAlgoRSAEncryptOnly, packet.PubKeyAlgoECDSA, packet.PubKeyAlgoEdDSA, packet.PubKeyAlgoEd25519:
	default:
		return nil
	}
	if len(id.Prints) == maxKeys {
		return fmt.Errorf("more than %d subkeys", maxKeys)
	}
	id.Prints = append(id.Prints, hex.EncodeToString(key.Fingerprint))
	return nil
}
