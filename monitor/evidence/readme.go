package evidence

// The texts that go with evidence, for people who do not have sigwarden. They
// are a part of the format: a change of them is a new version of it.

const inclusionReadme = `SIGWARDEN EVIDENCE: A LOG CONTAINS AN ENTRY

What is in this archive
  evidence.json      what is claimed (format sigwarden-evidence/v1)
  leaf               the entry, byte by byte as it is in the log
  entry.tlog-proof   index, audit path and signed checkpoint (C2SP tlog-proof)
  checkpoint         the signed checkpoint by itself
  authorities.json   certificate authorities that were trusted when the entry
                     was judged, if there were any: chains of base64 of DER,
                     leaf to root, with the time in which each may have issued
  trusted_root.json  the trusted root that these were taken from, if they were,
                     as it was in force
  trusted_root.provenance.json
                     the TUF metadata (base64) that authenticates that root, for
                     somebody who has the first root metadata of the repository

What is proven, to anybody who has the log's public key
  The log signed a tree that contains the leaf at the index named.

What is only a statement of whoever made this file
  Everything below "statement" in evidence.json: which watch the entry belongs
  to, the verdict, when it was seen, and whether certificates were trusted;
  that authorities.json holds authorities worth trusting, and that they and
  trusted_root.json were in force then. Certificates were
  judged at the beginning of their validity: the log tells no time.

How to check it
  With sigwarden:  sigwarden evidence verify FILE --log-key KEY
  Without:
  1. The signature. The last line of "checkpoint" begins with an em dash, the
     key's name, and base64: 4 bytes of key id, then the signature. What is
     signed is the text up to and with the newline before the blank line.
     For an Ed25519 key (log.pem) and a checkpoint with one signature line:
       sed '/^$/,$d' checkpoint > text
       tail -n 1 checkpoint | cut -d ' ' -f 3 | base64 -d | tail -c +5 > sig
       openssl pkeyutl -verify -pubin -inkey log.pem -rawin -in text -sigfile sig
  2. The leaf hash is the SHA-256 of a zero byte and the leaf:
       { printf '\0'; cat leaf; } | sha256sum
  3. Fold it with the hashes of entry.tlog-proof to the root, which is the
     third line of the checkpoint in base64. The hash of two nodes is the
     SHA-256 of a byte 1, the left and the right one; RFC 9162, section
     2.1.3.2, says which is left.
  4. The entry is JSON; a certificate in it is base64 of DER:
       openssl x509 -inform der -text -noout
`

const forkReadme = `SIGWARDEN EVIDENCE: A LOG HAS CONTRADICTED ITSELF

What is in this archive
  evidence.json        what is claimed (format sigwarden-evidence/v1)
  smaller-checkpoint   a checkpoint that the log signed
  larger-checkpoint    another one
  divergence.json      why both cannot be true

What is proven, to anybody who has the log's public key
  The log signed two checkpoints that cannot belong to one append-only tree.

What is only a statement of whoever made this file
  Everything below "statement" in evidence.json: when and where the
  checkpoints were served.

How to check it
  With sigwarden:  sigwarden evidence verify FILE --log-key KEY
  Without:
  1. Both signatures. The last line of a checkpoint begins with an em dash, the
     key's name, and base64: 4 bytes of key id, then the signature. What is
     signed is the text up to and with the newline before the blank line.
     For an Ed25519 key (log.pem) and a checkpoint with one signature line:
       sed '/^$/,$d' smaller-checkpoint > text
       tail -n 1 smaller-checkpoint | cut -d ' ' -f 3 | base64 -d | tail -c +5 > sig
       openssl pkeyutl -verify -pubin -inkey log.pem -rawin -in text -sigfile sig
  2. The contradiction, by the "shape" in divergence.json:
     equal-size  Both have one size (second line) and different roots (third
                 line). Nothing more is needed.
     prefix      "in_larger" holds the hash and the audit path, under the larger
                 checkpoint, of the node ("level", "index"), which starts at the
                 smaller size: index * 2^level. Fold it to the larger root: the
                 hash of two nodes is the SHA-256 of a byte 1, the left and the
                 right one; RFC 9162, section 2.1.3.2, says which is left, with
                 the node's level taken as that of the leaves. The hashes that
                 were taken as left ones, folded among themselves from the
                 smallest (met first) to the largest, give the root that the
                 larger tree has at the smaller size. It is not the root that
                 the smaller checkpoint signs.
     node        The node ("level", "index") lies in both trees. "in_smaller"
                 and "in_larger" prove it in each, with different hashes.
`

const promiseReadme = `SIGWARDEN EVIDENCE: A LOG HAS BROKEN A PROMISE

What is in this archive
  evidence.json        what is claimed (format sigwarden-evidence/v1)
  entry.tlog-proof     index, audit path and signed checkpoint (C2SP tlog-proof)
                       of the leaf that the log holds
  checkpoint           the signed checkpoint by itself
  broken-promise.json  all of it: "promised" is the entry and the log's signed
                       entry timestamp, "held" the hash of the leaf that the log
                       holds at "index" of the tree of "checkpoint", "before" the
                       signed heads of the trees that came before that one
  promise              what the log signed when it took the entry in
  promise.sig          its signature

What is proven, to anybody who has the log's public key
  The log promised to hold one entry at an index over all its trees, and signed
  a tree that holds another one at an index of its own.

What is only a statement of whoever made this file
  That both indexes name one place. Promises count over all trees of a server:
  the index in the promise is the one in the tree and the sizes of the trees
  before it. No signature says which trees these are, nor that those heads are
  their last: with others, an honest log looks the same. The server lists them
  under /api/v1/log, and those who followed the log know them. Without "before",
  the tree is said to be the first.
  Everything below "statement" in evidence.json: when and where it was served.

How to check it
  With sigwarden:  sigwarden evidence verify FILE --log-key KEY
  Without:
  1. The promise, for an ECDSA key (log.pem):
       openssl dgst -sha256 -verify log.pem -signature promise.sig promise
     "logID" in it is the SHA-256 of the key:
       openssl pkey -pubin -in log.pem -outform der | sha256sum
     and "body" the entry in base64, which
       sed 's/.*"body":"\([^"]*\)".*/\1/' promise | base64 -d > leaf
     takes out.
  2. The checkpoint. Its last line begins with an em dash, the key's name, and
     base64: 4 bytes of key id, then the signature. What is signed is the text up
     to and with the newline before the blank line. With one signature line:
       sed '/^$/,$d' checkpoint > text
       tail -n 1 checkpoint | cut -d ' ' -f 3 | base64 -d | tail -c +5 > sig
       openssl dgst -sha256 -verify log.pem -signature sig text
     The heads in "before" are checked in the same way.
  3. What the log holds: fold "hash" of "held" with the hashes of
     entry.tlog-proof to the root, which is the third line of the checkpoint in
     base64. The hash of two nodes is the SHA-256 of a byte 1, the left and the
     right one; RFC 9162, section 2.1.3.2, says which is left.
  4. What was promised has another hash, the SHA-256 of a zero byte and the leaf:
       { printf '\0'; cat leaf; } | sha256sum
  5. The sum of "index" and of the sizes (second lines) in "before" is the
     "logIndex" of the promise.
`
