package entry

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"

	"github.com/ProtonMail/go-crypto/openpgp/armor"
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
// undone.
func (d *Decoder) addPackets(r io.Reader) error {
	packets := packet.NewReader(r)
	var id *Identity
	for n := 0; ; n++ {
		p, err := packets.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if n == 10*maxKeys {
			return fmt.Errorf("more than %d packets", n)
		}
		var key *packet.PublicKey
		switch p := p.(type) {
		case *packet.PublicKey:
			key = p
		case *packet.PrivateKey:
			key = &p.PublicKey
		case *packet.UserId:
			if id != nil && isMail(p.Email) && len(id.Subjects) < maxSubjects {
				id.Subjects = append(id.Subjects, Subject{Email, p.Email})
			}
			continue
		default:
			continue
		}
		if !key.IsSubkey {
			if len(d.facts.Identities) >= maxKeys {
				return fmt.Errorf("more than %d keys", maxKeys)
			}
			id = d.identity()
			id.Format = "pgp"
		}
		if id == nil {
			return errors.New("a subkey without its key")
		}
		switch key.PubKeyAlgo {
		case packet.PubKeyAlgoRSA, packet.PubKeyAlgoRSASignOnly, packet.PubKeyAlgoRSAEncryptOnly, packet.PubKeyAlgoECDSA, packet.PubKeyAlgoEdDSA, packet.PubKeyAlgoEd25519:
			if len(id.Prints) < maxKeys {
				id.Prints = append(id.Prints, hex.EncodeToString(key.Fingerprint))
			}
		}
	}
}
