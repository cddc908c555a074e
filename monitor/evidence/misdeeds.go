package evidence

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/sigwarden/sigwarden/checkpoint"
)

func (v *verifier) fork() error {
	if err := v.only([]string{fileLogKey}, fileClaim, fileDivergence, fileSmaller, fileLarger, fileReadme); err != nil {
		return err
	}
	l, err := v.log()
	if err != nil {
		return err
	}
	d, err := checkpoint.ParseDivergence(v.files[fileDivergence])
	if err != nil {
		return fmt.Errorf("%s: %w", fileDivergence, err)
	}
	if again, err := printDivergence(d); err != nil || !bytes.Equal(again, v.files[fileDivergence]) {
		return fmt.Errorf("%s is not in the form in which evidence is written", fileDivergence)
	}
	if d.Smaller != string(v.files[fileSmaller]) || d.Larger != string(v.files[fileLarger]) {
		return fmt.Errorf("the checkpoints in %s are not those beside it", fileDivergence)
	}
	if err := d.Verify(l.Log); err != nil {
		return fmt.Errorf("%s: %w", fileDivergence, err)
	}
	if _, err := v.open(l, fileLarger); err != nil {
		return err
	}
	v.signedBy(l, "log", fileSmaller, v.files[fileSmaller])
	v.proven("the log's key signed both checkpoints of log %s", l.Origin())
	v.proven("both cannot be true (shape of the evidence: %s)", d.Shape)
	v.cosignatures(v.files[fileSmaller])
	v.cosignatures(v.files[fileLarger])
	v.statement("when and where the checkpoints were served")
	if v.claim.Claim == ClaimSplitView {
		v.statement("that one of them was shown to somebody else and not to whoever made this file")
	}
	return nil
}

func (v *verifier) retired() error {
	if err := v.only([]string{fileLogKey}, fileClaim, fileFrozen, fileLarger, fileReadme); err != nil {
		return err
	}
	l, err := v.log()
	if err != nil {
		return err
	}
	frozen, err := v.open(l, fileFrozen)
	if err != nil {
		return err
	}
	larger, err := l.Open(v.files[fileLarger])
	if err != nil {
		return fmt.Errorf("%s: %w", fileLarger, err)
	}
	v.signedBy(l, "log", fileLarger, v.files[fileLarger])
	if larger.Size() < frozen.Size() || larger.Size() == frozen.Size() && larger.Root() == frozen.Root() {
		return errors.New("the second checkpoint is the same, or an older one: nothing has changed")
	}
	if frozen.Frozen() {
		v.proven("the log's key signed that log %s had ended with %d entries", l.Origin(), frozen.Size())
	} else {
		v.proven("the log's key signed a tree of log %s with %d entries", l.Origin(), frozen.Size())
		v.statement("that the log was listed as one that had ended, when it had this tree")
	}
	v.proven("the log's key signed another tree of the same log, with %d entries", larger.Size())
	v.statement("which of the two was signed first, and when and where both were served: an honest log may serve an old checkpoint after the one that ended it")
	return nil
}

func (v *verifier) mismatch() error {
	if err := v.only([]string{fileServed, fileHeld, fileLogKey}, fileClaim, fileCheckpoint, fileReadme); err != nil {
		return err
	}
	l, err := v.log()
	if err != nil {
		return err
	}
	c, err := v.open(l, fileCheckpoint)
	if err != nil {
		return err
	}
	v.proven("the log's key signed a checkpoint of log %s with %d entries", l.Origin(), c.Size())
	v.cosignatures(v.files[fileCheckpoint])
	for _, name := range sortedNames(v.files, fileServed, fileHeld) {
		prefix := numberable(name)
		_, index, _ := place(name)
		if prefix == fileHeld {
			if _, ok := v.files[numberedName(fileServed, index)]; !ok {
				return fmt.Errorf("%s is there, and no %s", name, numberedName(fileServed, index))
			}
			continue
		}
		if err := v.served(c, index, v.files[name]); err != nil {
			return err
		}
	}
	v.statement("that the log served these bytes as its entries: it has signed nothing of the kind. This is the word of whoever made the file, and convinces nobody else")
	return nil
}

// served compares what was served with what the tree holds.
func (v *verifier) served(c checkpoint.Checkpoint, index uint64, leaf []byte) error {
	name := numberedName(fileHeld, index)
	got := checkpoint.LeafHash(leaf)
	doc, ok := v.files[name]
	if !ok {
		v.notProven("which hash the tree holds at index %d; what was served hashes to %x", index, got[:])
		return nil
	}
	held, path, err := parseHeld(doc)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if err := c.VerifyInclusion(index, held, path); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if held == got {
		return fmt.Errorf("%s: the tree holds at index %d just what was served", name, index)
	}
	v.proven("that tree holds at index %d a leaf with hash %x, and %s, which hashes to %x, is not it", index, held[:], numberedName(fileServed, index), got[:])
	return nil
}

// parseHeld reads what json.Marshal makes of a checkpoint.ProvenNode.
func parseHeld(doc []byte) (h checkpoint.Hash, path []checkpoint.Hash, err error) {
	var n checkpoint.ProvenNode
	if err := json.Unmarshal(doc, &n); err != nil {
		return h, nil, err
	}
	if again, err := json.Marshal(n); err != nil || !bytes.Equal(again, doc) {
		return h, nil, errors.New("not in the form in which evidence is written")
	}
	for _, p := range n.Path {
		path = append(path, checkpoint.Hash(p))
	}
	return checkpoint.Hash(n.Hash), path, nil
}

// sortedNames lists the files of some numbered kinds, in the order of the archive.
func sortedNames(files map[string][]byte, prefixes ...string) []string {
	var list []member
	for name := range files {
		if slices.Contains(prefixes, numberable(name)) {
			list = append(list, member{name: name})
		}
	}
	sortMembers(list)
	var out []string
	for _, m := range list {
		out = append(out, m.name)
	}
	return out
}

func (v *verifier) promise() error {
	if err := v.only([]string{fileLogKey}, fileClaim, fileProof, fileCheckpoint, fileBroken, filePromise, fileSET, fileReadme); err != nil {
		return err
	}
	l, err := v.log()
	if err != nil {
		return err
	}
	b, err := checkpoint.ParseBrokenPromise(v.files[fileBroken])
	if err != nil {
		return fmt.Errorf("%s: %w", fileBroken, err)
	}
	parts, err := promiseFiles(b)
	if err != nil {
		return fmt.Errorf("%s: %w", fileBroken, err)
	}
	for _, m := range parts {
		if !bytes.Equal(v.files[m.name], m.data) {
			return fmt.Errorf("%s is not the one in %s", m.name, fileBroken)
		}
	}
	if err := b.Verify(l.Log); err != nil {
		return fmt.Errorf("%s: %w", fileBroken, err)
	}
	if _, err := v.open(l, fileCheckpoint); err != nil {
		return err
	}
	promised := checkpoint.LeafHash(b.Promised.Leaf)
	v.proven("the log's key signed the promise to hold the leaf with hash %x at index %d over all trees", promised[:], b.Promised.LogIndex)
	v.proven("the log's key signed a tree of log %s that holds a leaf with hash %x at index %d", l.Origin(), b.Held.Hash[:], b.Index)
	order := "that both name one place, so that the promise is broken: that this tree is the first of its server"
	if len(b.Before) > 0 {
		order = fmt.Sprintf("that both name one place, so that the promise is broken: that the trees whose signed heads are in %s (%d of them) are all that come before this one, and had ended with %d entries in all", fileBroken, len(b.Before), b.Promised.LogIndex-b.Index)
	}
	v.statement("%s (no signature says so, and an honest log looks like this to whoever is told of other trees: compare with what those know who followed the log)", order)
	v.statement("when and where both were served")
	return nil
}
