package evidence

import "strings"

// The texts that go with evidence, for people who do not have sigwarden. They
// are a part of the format: a change of them is a new version of it. All commands in
// them need unzip, openssl, jq, xxd and coreutils alone.

// readmeOf puts together what belongs to a claim.
func readmeOf(c Claim) string {
	t := readmes[c.Claim]
	if c.Entry != nil && c.Entry.Redacted {
		t = redactedReadme
	}
	parts := []string{
		"SIGWARDEN EVIDENCE: " + t.title + "\n\nWhat may be in this archive (format sigwarden-evidence/v1)\n" + t.files,
		"What is proven, to anybody who has " + t.keys + "\n" + t.proven,
		"What is only a statement of whoever made this file\n" + t.statement,
		howTo + t.how,
	}
	return strings.Join(parts, "\n")
}

type readme struct{ title, files, keys, proven, statement, how string }

const (
	claimFile = `  evidence.json      what is claimed
`
	logKeyFile = `  log.pem            the log's public key as the maker of this file knows it. Trust
                     one that you have from elsewhere, and compare
`
	howTo = `How to check it
  With sigwarden:  sigwarden evidence verify FILE --log-key KEY
  Without, with unzip, openssl, jq, xxd and coreutils, in the unpacked archive,
  where KEY is the public key (PEM) that you trust:
`
	signatureHow = `  * A signed checkpoint (C2SP tlog-checkpoint). Its text ends with the newline
    before the last empty line; below are signature lines: an em dash, a name,
    and base64 of 4 bytes of key id and the signature.
      n=$(grep -n '^$' checkpoint | tail -n 1 | cut -d : -f 1)
      head -n $((n - 1)) checkpoint > text
      tail -n +$((n + 1)) checkpoint | grep -F ' NAME ' | sed -n 1p |
        cut -d ' ' -f 3 | base64 -d | tail -c +5 > sig
    NAME is the first line of the text; for Rekor v1 what stands there before
    " - ". Where several lines have that name, try each: 2p, 3p. With an Ed25519
    key:
      openssl pkeyutl -verify -pubin -inkey KEY -rawin -in text -sigfile sig
    With an ECDSA key (on P-384 and P-521 it may be -sha384 and -sha512):
      openssl dgst -sha256 -verify KEY -signature sig text
    Other lines are those of witnesses: for Ed25519, 8 bytes of time (seconds,
    big-endian) stand before the signature, which is over "cosignature/v1", a
    newline, "time SECONDS", a newline, and the text. ML-DSA lines (some 2,400
    bytes long) cannot be checked with these tools.
`
	foldHow = `  * An audit path (RFC 9162, section 2.1.3.2). The hash of two nodes is
      { printf '\001'; cat left right; } | sha256sum
    This folds the hash of a leaf with the hashes of its path, all in hex:
      node() { { printf '\001'; printf %s "$1$2" | xxd -r -p; } | sha256sum | cut -d ' ' -f 1; }
      fold() { # HASH INDEX SIZE PATH...
        h=$1 fn=$2 sn=$(($3 - 1)) left=; shift 3
        [ "$fn" -le "$sn" ] || { echo "no such leaf"; return 1; }
        for p; do
          if [ $((fn & 1)) = 1 ] || [ "$fn" = "$sn" ]; then
            h=$(node "$p" "$h"); if [ "$left" ]; then left=$(node "$p" "$left"); else left=$p; fi
            while [ $((fn & 1)) = 0 ] && [ "$fn" != 0 ]; do fn=$((fn >> 1)) sn=$((sn >> 1)); done
          else h=$(node "$h" "$p"); fi
          fn=$((fn >> 1)) sn=$((sn >> 1))
        done
        echo "$h $sn $left"
      }
    INDEX is that of the leaf, SIZE the second line of the checkpoint. It prints
    the root, which is the third line of the checkpoint, then 0, then what the
    hashes on the left alone give: the root of the tree that ends before the leaf.
      sed -n 3p checkpoint | base64 -d | xxd -p -c 64
    A path in base64, as in a file .tlog-proof, in hex:
      sed '1,2d;/^$/,$d' FILE.tlog-proof | while read -r l; do
        printf %s "$l" | base64 -d | xxd -p -c 64; done
`
	leafHow = `  * The hash of a leaf:
      { printf '\000'; cat leaf; } | sha256sum
`
)

const inclusionFiles = claimFile + `  leaf               the entry, byte by byte as it is in the log
  entry.tlog-proof   index, audit path and signed checkpoint (C2SP tlog-proof)
  checkpoint         the signed checkpoint by itself
  chain-N.pem        certificate of signer N up to an authority that was trusted
  promise            what a log of Rekor v1 signed when it took the entry in (its
                     signed entry timestamp): the entry, the time, its index
  promise.sig        the signature of that
  rule.json          what the rule of the watch said; evidence.json has its SHA-256
  authorities.json   certificate authorities that were trusted when the entry
                     was judged: chains of base64 of DER, leaf to root, with the
                     time in which each may have issued
  trusted_root.json  the trusted root that these were taken from, as it was in
                     force
  trusted_root.provenance.json
                     the TUF metadata (base64) that authenticates that root, for
                     somebody who has the first root metadata of the repository
` + logKeyFile

const inclusionHow = signatureHow + leafHow + foldHow + `    The path is in entry.tlog-proof, between the second line and the empty one.
  * The entry is JSON; the certificate of signer 1, if chain-1.pem is there:
      openssl x509 -in chain-1.pem -noout -text
    and whether an authority that you trust (ROOT.pem) issued it, at a time in
    its validity (SECONDS since 1970):
      openssl verify -no-CApath -no-CAstore -CAfile ROOT.pem \
        -untrusted chain-1.pem -attime SECONDS chain-1.pem
  * The promise of Rekor v1:
      openssl dgst -sha256 -verify KEY -signature promise.sig promise
      jq -r .body promise | base64 -d | cmp - leaf
      jq .integratedTime,.logIndex promise
  * The rule:
      sha256sum rule.json; jq -r .rule_hash evidence.json
`

var readmes = map[string]readme{
	ClaimInclusion: {
		title:  "A LOG CONTAINS AN ENTRY",
		files:  inclusionFiles,
		keys:   "the log's public key",
		proven: "  The log signed a tree that contains the leaf at the index named; where there is\n  a promise, when it took it in. To whoever trusts an authority: whom that has\n  vouched for.\n",
		statement: `  Everything below "statement" in evidence.json: which watch the entry belongs
  to, the verdict, when it was seen; that rule.json was the rule, and that
  authorities.json and trusted_root.json were in force. Where the log tells no
  time, certificates were judged at the beginning of their validity.
`,
		how: inclusionHow,
	},
	ClaimFork: {
		title:     "A LOG HAS CONTRADICTED ITSELF",
		files:     forkFiles,
		keys:      "the log's public key",
		proven:    "  The log signed two checkpoints that cannot belong to one append-only tree.\n",
		statement: "  Everything below \"statement\" in evidence.json: when and where the checkpoints\n  were served.\n",
		how:       forkHow,
	},
	ClaimSplitView: {
		title:     "A LOG HAS SHOWN TWO VIEWS OF ITSELF",
		files:     forkFiles,
		keys:      "the log's public key",
		proven:    "  The log signed two checkpoints that cannot belong to one append-only tree.\n",
		statement: "  Everything below \"statement\" in evidence.json: when and where the checkpoints\n  were found, and that one of them was shown to somebody else.\n",
		how:       forkHow,
	},
	ClaimRetiredChanged: {
		title: "A LOG THAT HAD ENDED HAS CHANGED",
		files: claimFile + `  frozen-checkpoint  what the log signed when it had ended
  larger-checkpoint  what it signed besides
` + logKeyFile,
		keys: "the log's public key",
		proven: `  The log signed both. If a line of frozen-checkpoint begins with "Log frozen",
  it signed that it had ended, and another tree.
`,
		statement: `  Which of both was signed first, and when and where they were served: an old
  checkpoint, served late, is no change. Without a line "Log frozen": that the
  log was listed as one that had ended. Everything below "statement" in
  evidence.json.
`,
		how: signatureHow + "    Here for frozen-checkpoint and larger-checkpoint.\n  * Their second and third lines, size and root, are not the same.\n",
	},
	ClaimMismatch: {
		title: "A LOG HAS SERVED OTHER ENTRIES THAN ITS OWN (OUR WORD ONLY)",
		files: claimFile + `  checkpoint         the signed checkpoint
  served-entry-N     what was served as entry N
  tree-leaf-N.json   the hash that the tree holds at N, with its audit path (hex)
` + logKeyFile,
		keys: "the log's public key",
		proven: `  The log signed a tree, and what is in served-entry-N is not its entry N, where
  tree-leaf-N.json is there. THAT IS ALL: anybody can write a file of bytes that
  are not in a tree.
`,
		statement: `  That the log served these bytes. It has signed nothing of the kind, so that
  this convinces nobody who does not trust whoever made the file. Everything
  below "statement" in evidence.json.
`,
		how: signatureHow + "  * The hash of what was served:\n      { printf '\\000'; cat served-entry-N; } | sha256sum\n    is not \"hash\" in tree-leaf-N.json, which folds to the root:\n" + foldHow,
	},
	ClaimBrokenPromise: {
		title: "A LOG HAS BROKEN A PROMISE",
		files: claimFile + `  entry.tlog-proof   index, audit path and signed checkpoint (C2SP tlog-proof) of
                     the leaf that the log holds
  checkpoint         the signed checkpoint by itself
  broken-promise.json
                     all of it: "promised" is the entry and the log's signed entry
                     timestamp, "held" the hash of the leaf that the log holds at
                     "index" of the tree of "checkpoint", "before" the signed
                     heads of the trees that came before that one
  promise            what the log signed when it took the entry in
  promise.sig        its signature
` + logKeyFile,
		keys:   "the log's public key",
		proven: "  The log promised to hold one entry at an index over all its trees, and signed\n  a tree that holds another one at an index of its own.\n",
		statement: `  That both indexes name one place. Promises count over all trees of a server:
  the index in the promise is the one in the tree and the sizes of the trees
  before it. No signature says which trees these are, nor that those heads are
  their last: with others, an honest log looks the same. The server lists them
  under /api/v1/log, and those who followed the log know them. Without "before",
  the tree is said to be the first.
  Everything below "statement" in evidence.json: when and where it was served.
`,
		how: `  * The promise:
      openssl dgst -sha256 -verify KEY -signature promise.sig promise
    "logID" in it is the SHA-256 of the key:
      openssl pkey -pubin -in KEY -outform der | sha256sum
    What was promised has the hash
      { printf '\000'; jq -r .body promise | base64 -d; } | sha256sum
` + signatureHow + "    The heads in \"before\" are checked in the same way; the first of them:\n      jq -j '.before[0]' broken-promise.json > before-checkpoint\n" + foldHow + `    Here the hash of the leaf is "hash" of "held" in broken-promise.json, and the
    path is in entry.tlog-proof. It is not the hash of what was promised.
  * The sum of "index" and of the sizes (second lines) in "before" is the
    "logIndex" of the promise.
`,
	},
	ClaimCoverage: {
		title: "A LOG WAS WATCHED",
		files: claimFile + `  ledger.jsonl       rows of the ledger in which sigwarden writes down what it does
  ledger.tlog-proof  place of the last of them in the ledger, audit path, and its
                     signed head
  ledger.pem         the public key of the ledger, as the maker of this file knows
                     it. Trust one that you have from elsewhere, and compare
  checkpoint         the checkpoint that the last row about the log names
` + logKeyFile,
		keys: "the public keys of the ledger, and of the log",
		proven: `  Whoever has the ledger's key signed a ledger with the last of these rows in it;
  each row holds the hash of the one before it, so that none was changed, and none
  is missing in between. The log signed the checkpoint.
`,
		statement: `  What the rows say: that the log was polled, and its entries proven, decoded and
  matched. It is the word of whoever has the ledger's key. It cannot be taken
  back unnoticed by those who keep a signed head, or find it in a log.
`,
		how: `  (with sigwarden, give the ledger's key too: --ledger-key KEY)
` + signatureHow + `    ledger.tlog-proof has the head of the ledger behind its first empty line:
      n=$(grep -n '^$' ledger.tlog-proof | head -n 1 | cut -d : -f 1)
      tail -n +$((n + 1)) ledger.tlog-proof > ledger-head
    It is checked in the same way, as ledger-head, with the ledger's key.
` + `  * The rows. The hash of a row is that of its line without the line's end:
      { printf '\000'; sed -n 1p ledger.jsonl | tr -d '\n'; } | sha256sum
    It is "before" of the next row. That of the last row folds to the root:
` + foldHow + `  * What they say:
      jq -c 'select(.kind == "span") | .body' ledger.jsonl
      jq -c 'select(.kind == "pause" or .kind == "gap")' ledger.jsonl
`,
	},
}

const forkFiles = claimFile + `  smaller-checkpoint a checkpoint that the log signed
  larger-checkpoint  another one
  divergence.json    why both cannot be true
` + logKeyFile

const forkHow = signatureHow + `    Here for smaller-checkpoint and larger-checkpoint.
  * The contradiction, by the "shape" in divergence.json:
    equal-size  Both have one size (second line) and different roots (third
                line). Nothing more is needed.
    prefix      "in_larger" holds the hash and the audit path, under the larger
                checkpoint, of the node ("level", "index"), which starts at the
                smaller size: index * 2^level. Fold it as below: it gives the
                larger root. What the hashes on the left give, the third that
                is printed, is the root that the larger tree has at the smaller
                size. It is not the root that the smaller checkpoint signs.
    node        The node ("level", "index") lies in both trees. "in_smaller"
                and "in_larger" prove it in each, with different hashes: fold
                each as below, with the size of its tree.
` + foldHow + `    For a node, SIZE is that of its level: ((size - 1) >> level) + 1.
      N=$(sed -n 2p larger-checkpoint) L=$(jq '.level // 0' divergence.json)
      fold $(jq -r .in_larger.hash divergence.json) $(jq '.index // 0' divergence.json) \
        $((((N - 1) >> L) + 1)) $(jq -r '.in_larger.path[]?' divergence.json)
`

var redactedReadme = readme{
	title: "A LOG CONTAINS AN ENTRY (WHAT IT SAYS IS LEFT OUT)",
	files: claimFile + `  entry.tlog-proof   index, audit path and signed checkpoint (C2SP tlog-proof)
  checkpoint         the signed checkpoint by itself
  authorities.json, trusted_root.json, trusted_root.provenance.json
                     whom certificates were judged by
` + logKeyFile,
	keys:   "the log's public key",
	proven: "  The log signed a tree that contains a leaf with the hash named, at the index\n  named. The leaf is left out, since it names people: anybody can get it from the\n  log, and hash it.\n",
	statement: `  Everything below "statement" in evidence.json. E-mail addresses in it are
  replaced by a keyed hash of them (HMAC-SHA-256): the same address has the same
  hash, and whoever has the key can tell which.
`,
	how: signatureHow + foldHow + "    The hash of the leaf is \"leaf_hash\" in evidence.json, in hex.\n" + leafHow,
}
