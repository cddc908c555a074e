package evidence

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
	"strconv"
	"strings"
)

// Names of the files in an archive.
const (
	fileClaim      = "evidence.json"
	fileLeaf       = "leaf"
	fileProof      = "entry.tlog-proof"
	fileCheckpoint = "checkpoint"
	fileChain      = "chain-" // N.pem, of the Nth signer
	fileRule       = "rule.json"
	fileAuthority  = "authorities.json"
	fileTrustRoot  = "trusted_root.json"
	fileProvenance = "trusted_root.provenance.json"
	fileDivergence = "divergence.json"
	fileSmaller    = "smaller-checkpoint"
	fileFrozen     = "frozen-checkpoint"
	fileLarger     = "larger-checkpoint"
	fileServed     = "served-entry-" // INDEX
	fileHeld       = "tree-leaf-"    // INDEX.json
	fileBroken     = "broken-promise.json"
	filePromise    = "promise"
	fileSET        = "promise.sig"
	fileLedger     = "ledger.jsonl"
	fileLedgerTree = "ledger.tlog-proof"
	fileLogKey     = "log.pem"
	fileLedgerKey  = "ledger.pem"
	fileReadme     = "README.txt"
)

// order is that of the files in an archive.
var order = []string{fileClaim, fileLeaf, fileProof, fileCheckpoint, fileChain, fileRule, fileAuthority, fileTrustRoot, fileProvenance, fileDivergence, fileSmaller, fileFrozen, fileLarger,
	fileServed, fileHeld, fileBroken, filePromise, fileSET, fileLedger, fileLedgerTree, fileLogKey, fileLedgerKey, fileReadme}

// numbered are the names that a number follows, and what follows that.
var numbered = map[string]string{fileChain: ".pem", fileServed: "", fileHeld: ".json"}

// numberedName names the nth file of its kind.
func numberedName(prefix string, n uint64) string {
	return prefix + strconv.FormatUint(n, 10) + numbered[prefix]
}

// place says where in an archive a file stands: by the place of its kind, and by its
// number.
func place(name string) (kind int, n uint64, ok bool) {
	if kind := slices.Index(order, name); kind >= 0 && numberable(name) == "" {
		return kind, 0, true
	}
	prefix := numberable(name)
	n, err := strconv.ParseUint(strings.TrimSuffix(strings.TrimPrefix(name, prefix), numbered[prefix]), 10, 63)
	if prefix == "" || err != nil || numberedName(prefix, n) != name {
		return 0, 0, false
	}
	return slices.Index(order, prefix), n, true
}

// numberable returns the prefix of a name that a number belongs to; empty: none.
func numberable(name string) string {
	for prefix := range numbered {
		if strings.HasPrefix(name, prefix) {
			return prefix
		}
	}
	return ""
}

type member struct {
	name string
	data []byte
}

// sortMembers puts files into the order of an archive.
func sortMembers(files []member) {
	slices.SortStableFunc(files, func(a, b member) int {
		ka, na, _ := place(a.name)
		kb, nb, _ := place(b.name)
		if ka != kb {
			return ka - kb
		}
		switch {
		case na < nb:
			return -1
		case na > nb:
			return 1
		}
		return 0
	})
}

// firstDate stands for no time at all: 1980-01-01, the first that zip can hold.
const firstDate = 1<<5 | 1

// writeArchive writes files in their order, uncompressed and at one time, so
// that the same evidence has the same bytes.
func writeArchive(w io.Writer, files []member) error {
	z := zip.NewWriter(w)
	for _, f := range files {
		// Raw, so that sizes stand before the contents: some readers need that.
		h := &zip.FileHeader{Name: f.name, Method: zip.Store, CRC32: crc32.ChecksumIEEE(f.data), CompressedSize64: uint64(len(f.data)), UncompressedSize64: uint64(len(f.data))}
		//lint:ignore SA1019 what is raw takes the old field alone
		h.ModifiedDate = firstDate
		fw, err := z.CreateRaw(h)
		if err != nil {
			return err
		}
		if _, err := fw.Write(f.data); err != nil {
			return err
		}
	}
	return z.Close()
}

// Bounds of an archive that is read.
const (
	// A server of Rekor v1 may answer with 32 MiB, and a leaf may be in the archive
	// three times in base64.
	maxArchive = 128 << 20
	maxFiles   = 100
)

// comparing is a writer of what has to be there.
type comparing struct{ rest []byte }

var errDiffers = errors.New("something else is there")

func (c *comparing) Write(p []byte) (int, error) {
	if !bytes.HasPrefix(c.rest, p) {
		return 0, errDiffers
	}
	c.rest = c.rest[len(p):]
	return len(p), nil
}

// checkDirectory looks at the end of an archive (APPNOTE 4.3.16) before it is read: a reader takes memory for
// each of millions of files that an archive may list, and believes their number modulo 65,536. What
// writeArchive makes has no comment and nothing of zip64.
func checkDirectory(data []byte) error {
	const end, header, longest = 22, 46, 64
	if len(data) < end || !bytes.HasPrefix(data[len(data)-end:], []byte("PK\x05\x06")) {
		return errors.New("not a zip archive of the form that evidence has")
	}
	tail := data[len(data)-end:]
	files, size, from := int(binary.LittleEndian.Uint16(tail[10:])), uint64(binary.LittleEndian.Uint32(tail[12:])), uint64(binary.LittleEndian.Uint32(tail[16:]))
	if files > maxFiles || size > maxFiles*(header+longest) {
		return fmt.Errorf("archive holds %d files, or a list of them of %d bytes: more than evidence does", files, size)
	}
	if from+size != uint64(len(data)-end) {
		return errors.New("not a zip archive of the form that evidence has: its list of files does not end where it ends")
	}
	return nil
}

// readArchive takes an archive apart. It takes what writeArchive makes of the
// same contents, byte by byte, and nothing else: whatever a zip can hide shows
// as a difference.
func readArchive(data []byte) (map[string][]byte, error) {
	if len(data) > maxArchive {
		return nil, fmt.Errorf("file has %d bytes, more than any evidence", len(data))
	}
	if err := checkDirectory(data); err != nil {
		return nil, err
	}
	z, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		return nil, fmt.Errorf("not a zip archive: %w", err)
	}
	if len(z.File) > maxFiles {
		return nil, fmt.Errorf("archive holds %d files, more than evidence does", len(z.File))
	}
	var list []member
	for _, f := range z.File {
		if _, _, ok := place(f.Name); !ok {
			return nil, fmt.Errorf("archive holds a file %.80q that does not belong there", f.Name)
		}
		// What is stored stands in the file as it is: it is not copied.
		from, err := f.DataOffset()
		if err != nil {
			return nil, fmt.Errorf("%.80q: %w", f.Name, err)
		}
		if f.Method != zip.Store || from > int64(len(data)) || f.UncompressedSize64 > uint64(int64(len(data))-from) {
			return nil, fmt.Errorf("%.80q is compressed, or too large", f.Name)
		}
		to := from + int64(f.UncompressedSize64)
		list = append(list, member{f.Name, data[from:to:to]})
	}
	files := map[string][]byte{}
	for _, m := range list {
		if _, twice := files[m.name]; twice {
			return nil, fmt.Errorf("archive holds %.80q twice", m.name)
		}
		files[m.name] = m.data
	}
	sorted := slices.Clone(list)
	sortMembers(sorted)
	for i, m := range list {
		if m.name != sorted[i].name {
			return nil, fmt.Errorf("archive holds a file %.80q that does not belong there, or not in this place", m.name)
		}
	}
	again := &comparing{data}
	if err := writeArchive(again, list); err != nil || len(again.rest) > 0 {
		return nil, errors.New("archive is not in the form in which evidence is written: it was packed anew, or altered")
	}
	return files, nil
}
