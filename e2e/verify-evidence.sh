#!/usr/bin/env bash
# Checks a file of sigwarden-evidence/v1 with unzip, openssl, jq, xxd and coreutils alone.
# Exit status: 0 its claim is proven (of an entry mismatch: what can be), 1 it is not.
set -euo pipefail && export LC_ALL=C
fail() { echo "DOES NOT HOLD: $*" >&2; exit 1; }
say() { echo "$1: ${*:2}"; }
[ $# -ge 2 ] || { echo "usage: $0 FILE LOG_KEY.pem [LEDGER_KEY.pem|- [CA.pem]]" >&2; exit 2; }
file=$(realpath "$1") key=$(realpath "$2") ledger=${3:+$(realpath "$3")} ca=${4:+$(realpath "$4")}
dir=$(mktemp -d) && trap 'rm -rf "$dir"' EXIT && names=$(unzip -Z1 "$file" 2>/dev/null) || fail "not a zip archive"
[ "$(sort <<<"$names" | uniq -d)" = "" ] && ! grep -qvE '^[A-Za-z0-9_.-]+$' <<<"$names" || fail "a file is in it twice, or a path leads out of it"
[ "$(unzip -Zt "$file" | cut -d ' ' -f 3)" -le 134217728 ] || fail "too large"
unzip -qq "$file" -d "$dir" >/dev/null 2>&1 && cd "$dir" || fail "not a whole zip archive"
for f in *; do [ -f "$f" ] && [ ! -L "$f" ] || fail "$f is not a plain file"; done
# only REGEX: what a claim has files for, beside those of all claims.
only() { if grep -qvxE "evidence\.json|README\.txt|log\.pem|$1" <<<"$names"; then fail "a file that the claim has no use for"; fi; }
sha() { sha256sum | cut -d ' ' -f 1; } && leaf_hash() { { printf '\000'; cat "$1"; } | sha; }
node_hash() { { printf '\001'; xxd -r -p <<<"$1$2"; } | sha; } && b64hex() { base64 -d <<<"$1" | xxd -p -c 64; }
# signed NAME FILE KEY TEXT: does a key verify the signature in FILE over TEXT?
signed() {
	if openssl pkey -pubin -in "$1" -text -noout | grep -q ED25519; then
		openssl pkeyutl -verify -pubin -inkey "$1" -rawin -in "$3" -sigfile "$2" >/dev/null 2>&1
	else for h in sha256 sha384 sha512; do openssl dgst -$h -verify "$1" -signature "$2" "$3" >/dev/null 2>&1 && return 0; done && return 1; fi; }
# checkpoint FILE KEY: verifies it; sets origin, size, root (hex).
checkpoint() {
	local n line name sig good= && n=$(grep -n '^$' "$1" | tail -n 1 | cut -d : -f 1)
	head -n $((n - 1)) "$1" >text
	origin=$(sed -n 1p text) size=$(sed -n 2p text) root=$(b64hex "$(sed -n 3p text)")
	name=${origin% - *}
	[[ $size =~ ^(0|[1-9][0-9]{0,18})$ && ${#root} = 64 ]] || fail "$1 is not a checkpoint"
	while IFS= read -r line; do
		base64 -d <<<"${line##* }" >line 2>/dev/null || fail "$1: a signature line is not base64"
		sig=$(cut -d ' ' -f 2 <<<"$line") && tail -c +5 line >sig
		if [ "$sig" = "$name" ]; then if signed "$2" sig text; then good=yes; fi
		elif [ "$(stat -c %s line)" -gt 2000 ]; then say unchecked "the cosignature of $sig on $1: ML-DSA, which these tools do not know"
		else say unchecked "the cosignature of $sig on $1: no key of it was given"; fi
	done < <(tail -n +$((n + 1)) "$1")
	[ "$good" ] || fail "$1: the key did not sign it" && say proven "the key signed $1: $origin, size $size, root $root"
}
# fold HASH INDEX SIZE LEVEL PATH…: RFC 9162 2.1.3.2 from a node up; sets folded, and lefts: the tree before it.
fold() {
	local fn=$2 sn=$((($3 - 1) >> $4)) p && folded=$1 lefts=
	for p in "$1" "${@:5}"; do [[ $p =~ ^[0-9a-f]{64}$ ]] || fail "a hash is not 64 lower-case hex digits"; done
	((fn <= sn)) || fail "no leaf $2 in a tree of $3"
	for p in "${@:5}"; do
		((sn > 0)) || fail "an audit path is too long"
		if ((fn & 1 || fn == sn)); then
			folded=$(node_hash "$p" "$folded")
			if [ "$lefts" ]; then lefts=$(node_hash "$p" "$lefts"); else lefts=$p; fi
			while ! ((fn & 1 || fn == 0)); do fn=$((fn >> 1)) sn=$((sn >> 1)); done
		else folded=$(node_hash "$folded" "$p"); fi
		fn=$((fn >> 1)) sn=$((sn >> 1))
	done
	((sn == 0)) || fail "an audit path is too short"; }
# proof FILE OUT: splits a tlog-proof; sets index and path, writes its checkpoint.
proof() {
	local n line && [ "$(sed -n 1p "$1")" = c2sp.org/tlog-proof@v1 ] || fail "$1 is no tlog-proof"
	index=$(sed -n '2s/^index \(0\|[1-9][0-9]\{0,17\}\)$/\1/p' "$1") path=() && [ "$index" ] || fail "$1 has no index"
	n=$(grep -n '^$' "$1" | head -n 1 | cut -d : -f 1)
	tail -n +$((n + 1)) "$1" >"$2"
	while IFS= read -r line; do path+=("$(b64hex "$line")"); done < <(sed "1,2d;$n,\$d" "$1")
}
in_tree() { fold "$1" "$2" "$size" 0 "${@:3}"; [ "$folded" = "$root" ] || fail "leaf $2 is not in that tree"; }
claim() { jq -er "$1" evidence.json; }
number() { jq -e "$1 // 0 | if type == \"number\" and . >= 0 and . < 9e15 and . == floor then . else error end" divergence.json || fail "no number"; }
same_origin() { [ "$origin" = "$(claim .origin)" ] || fail "the checkpoint is of another log"; }
[ "$(claim .format)" = sigwarden-evidence/v1 ] && say unchecked "README.txt: anybody may have written it" || fail "another format than sigwarden-evidence/v1"
case $(claim .claim) in
inclusion)
	only 'leaf|entry\.tlog-proof|checkpoint|chain-[1-9][0-9]*\.pem|rule\.json|authorities\.json|trusted_root(\.provenance)?\.json|promise(\.sig)?'
	proof entry.tlog-proof carried && cmp -s carried checkpoint || fail "two checkpoints"
	checkpoint checkpoint "$key" && same_origin && hash=$(claim .entry.leaf_hash) && [ ! -e leaf ] || [ "$(jq '.entry.redacted // false' evidence.json)" = false ] || fail "a leaf beside what is redacted"
	[ "$(jq -r '.entry.redacted // false' evidence.json)" = true ] || [ "$(leaf_hash leaf)" = "$hash" ] || fail "evidence.json names another leaf"
	[ "$index $size $root" = "$(claim '"\(.entry.index) \(.entry.size) \(.entry.root)"')" ] || fail "evidence.json names another place"
	in_tree "$hash" "$index" "${path[@]}" && say proven "that tree holds the leaf with hash $hash at index $index"
	if [ -e promise ] || [ -e promise.sig ]; then
		signed "$key" promise.sig promise && jq -r .body promise | base64 -d | cmp -s - leaf || fail "the promise is not one of the key's for this leaf"
		say proven "the log took it in at $(date -u -d "@$(jq .integratedTime promise)" +%FT%TZ), as entry $(jq .logIndex promise) over all trees"
	fi
	[ ! -e rule.json ] || [ "sha256:$(sha <rule.json)" = "$(claim .rule_hash)" ] || fail "rule.json is not the one named"
	for c in chain-*.pem; do
		[ -e "$c" ] || continue
		openssl x509 -in "$c" -noout 2>/dev/null || fail "$c holds no certificate"
		grep -qF "$(openssl x509 -in "$c" -outform der | base64 -w 0)" leaf || grep -qF "$(openssl x509 -in "$c" | base64 -w 0)" leaf || fail "$c does not begin with a certificate of the leaf"
		if [ -e promise ]; then at=$(jq .integratedTime promise); else at=$(date -d "$(openssl x509 -in "$c" -noout -startdate | cut -d = -f 2)" +%s); fi
		if [ -z "$ca" ]; then say unchecked "who issued the certificate in $c: no authority was given"
		elif openssl verify -no-CApath -no-CAstore -CAfile "$ca" -untrusted "$c" -attime "$at" -purpose any "$c" >/dev/null 2>&1; then say proven "an authority that was given issued the certificate in $c"
		else say unchecked "no authority that was given issued the certificate in $c"; fi
	done ;;
fork | split-view)
	only '(smaller|larger)-checkpoint|divergence\.json' && checkpoint smaller-checkpoint "$key" && same_origin && k=$size small=$root
	checkpoint larger-checkpoint "$key" && same_origin
	cmp -s <(jq -j .smaller divergence.json) smaller-checkpoint && cmp -s <(jq -j .larger divergence.json) larger-checkpoint || fail "other checkpoints in divergence.json"
	level=$(number .level) at=$(number .index)
	((level <= 62 && at <= (size - 1) >> level)) || fail "no such node in that tree"
	node() { jq -er "$1 | .hash, .path[]" divergence.json; }
	case $(jq -r .shape divergence.json) in
	equal-size) [ "$k" = "$size" ] && [ "$small" != "$root" ] || fail "no contradiction" ;;
	prefix)
		((k > 0 && k < size && at << level == k)) || fail "the node is not at the smaller size"
		mapfile -t n < <(node .in_larger)
		fold "${n[0]}" "$at" "$size" "$level" "${n[@]:1}"
		[ "$folded" = "$root" ] && [ "$lefts" != "$small" ] || fail "no contradiction" ;;
	node)
		((k <= size && (at + 1) << level <= k)) || fail "the node is not in both trees"
		mapfile -t n < <(node .in_larger) && mapfile -t m < <(node .in_smaller)
		fold "${n[0]}" "$at" "$size" "$level" "${n[@]:1}" && [ "$folded" = "$root" ] || fail "no node of the larger tree"
		fold "${m[0]}" "$at" "$k" "$level" "${m[@]:1}" && [ "$folded" = "$small" ] && [ "${n[0]}" != "${m[0]}" ] || fail "no contradiction" ;;
	*) fail "unknown shape" ;;
	esac
	say proven "both checkpoints cannot be true" ;;
retired-log-changed)
	only '(frozen|larger)-checkpoint' && checkpoint frozen-checkpoint "$key" && same_origin && before="$size $root"
	if tail -n +4 text | grep -q '^Log frozen — '; then say proven "the log had ended with that"; else say statement "that the log had ended with that"; fi
	checkpoint larger-checkpoint "$key" && same_origin && ((size >= ${before% *})) && [ "$before" != "$size $root" ] || fail "nothing changed" ;;
entry-mismatch)
	only 'checkpoint|served-entry-[0-9]+|tree-leaf-[0-9]+\.json' && checkpoint checkpoint "$key" && same_origin
	for f in tree-leaf-*.json; do
		[ -e "$f" ] || continue
		i=${f#tree-leaf-} && i=${i%.json} && [[ $i =~ ^(0|[1-9][0-9]{0,17})$ && -f served-entry-$i ]] && mapfile -t n < <(jq -er '.hash, .path[]' "$f") || fail "$f belongs to nothing"
		in_tree "${n[0]}" "$i" "${n[@]:1}" && [ "$(leaf_hash "served-entry-$i")" != "${n[0]}" ] || fail "the tree holds what was served"
		say proven "served-entry-$i is not entry $i of that tree"
	done
	say statement "that the log served it" ;;
broken-promise)
	only 'entry\.tlog-proof|checkpoint|broken-promise\.json|promise(\.sig)?' && signed "$key" promise.sig promise || fail "the key did not sign the promise" && say proven "the key signed the promise of an entry at index $(jq .logIndex promise) over all trees"
	proof entry.tlog-proof carried && cmp -s carried checkpoint && checkpoint checkpoint "$key" && same_origin || fail "two checkpoints"
	cmp -s <(jq -j .checkpoint broken-promise.json) checkpoint && [ "$(jq -r '"\(.index) \([.held.path[]?] | join(" "))"' broken-promise.json)" = "$index ${path[*]}" ] || fail "broken-promise.json says other things"
	held=$(jq -er .held.hash broken-promise.json) && in_tree "$held" "$index" "${path[@]}"
	[ "$(jq -c '.promised | [.leaf, .integrated_time, .log_id, .log_index]' broken-promise.json)" = "$(jq -c '[.body, .integratedTime, .logID, .logIndex]' promise)" ] || fail "two promises"
	jq -r .body promise | base64 -d >promised && [ "$(leaf_hash promised)" != "$held" ] || fail "the promise was kept"
	sum=$index seen="<${origin##* - }>"
	for ((i = 0; i < $(jq '.before // [] | length' broken-promise.json); i++)); do jq -j ".before[$i]" broken-promise.json >head && checkpoint head "$key" && [[ $seen != *"<${origin##* - }>"* ]] || fail "a tree counts twice" && seen+="<${origin##* - }>" sum=$((sum + size)); done
	[ "$sum" = "$(jq .logIndex promise)" ] || fail "both are not in one place"
	say statement "that no other trees come before this one" ;;
coverage)
	only 'ledger\.(jsonl|tlog-proof|pem)|checkpoint' && [ "$ledger" ] && before= || fail "the ledger's key is needed"
	while IFS= read -r line; do
		[ -z "$before" ] || [ "$(jq -r .before <<<"$line")" = "$before" ] || fail "a row does not follow the row before it"
		before=$({ printf '\000'; printf %s "$line"; } | sha)
	done <ledger.jsonl && [ "$(jq -s 'map(.n) | . == [range(.[0]; .[0] + length)]' ledger.jsonl)" = true ] || fail "rows do not follow each other"
	proof ledger.tlog-proof ledger-head && checkpoint ledger-head "$ledger" && in_tree "$before" "$index" "${path[@]}"
	[[ $origin = sigwarden-ledger/* ]] && [ "$origin $index $(head -n 1 ledger.jsonl | jq .n)" = "$(claim '"\(.coverage.ledger) \(.coverage.to_row - 1) \(.coverage.from_row)"')" ] || fail "evidence.json names another ledger"
	say proven "the last of these rows is in that ledger, and by their hashes those before it, none missing in between"
	if [ -e checkpoint ]; then
		checkpoint checkpoint "$key" && [ "${origin##* - }" = "$(claim '.origin | sub(".* - "; "")')" ] || fail "the checkpoint is of another log"
		[ "$size $root" = "$(jq -r --arg o "${origin##* - }" 'select(.kind == "span" and (.log | sub(".* - "; "")) == $o) | "\(.body.head.size) \(.body.head.root)"' ledger.jsonl | tail -n 1)" ] || fail "the rows name another checkpoint"
	fi
	say statement "what the rows say was watched" ;;
*) fail "unknown claim" ;;
esac
