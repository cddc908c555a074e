package config

import (
	"bytes"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Signer is one signer of a release, as its log entry or bundle shows it.
type Signer struct {
	// From says where it was found, for a comment.
	From string
	// Subjects of a certificate, or of a key that names its holder.
	Subjects []SignerSubject
	// Issuer is the OIDC issuer; empty where there is none.
	Issuer string
	// Extensions by their names; those that stay the same from one release to
	// the next are used.
	Extensions map[string]string
	// Fingerprint names a key that is used again and again; empty for a certificate.
	Fingerprint string
}

// SignerSubject is a subject, and which kind of pattern fits it.
type SignerSubject struct {
	Value     string
	Mail, URI bool
}

// Writable reports whether a configuration can hold the names of a signer: YAML
// is text, and what a certificate calls text need not be.
func (s *Signer) Writable() bool {
	ok := utf8.ValidString(s.Issuer)
	for _, subject := range s.Subjects {
		ok = ok && utf8.ValidString(subject.Value)
	}
	for _, value := range s.Extensions {
		ok = ok && utf8.ValidString(value)
	}
	return ok
}

// FromReleases returns a configuration whose watch finds whatever is signed in
// the name of these signers, and expects what is signed as they did: by the same
// subject through the same issuer, from the same repository. The tag of a version
// stands for those of all versions.
func FromReleases(signers []Signer, staging bool) []byte {
	var match, expect []string
	add := func(list *[]string, item string) {
		if !slices.Contains(*list, item) {
			*list = append(*list, item)
		}
	}
	var from []string
	for _, s := range signers {
		if !slices.Contains(from, s.From) {
			from = append(from, s.From)
		}
		for _, item := range s.match() {
			add(&match, item)
		}
		add(&expect, s.expect())
	}
	var b bytes.Buffer
	b.WriteString("# Made from these releases:\n")
	for _, name := range from {
		fmt.Fprintf(&b, "#   %s\n", name)
	}
	b.WriteString("# What is signed as they were is expected. Whatever else is signed in the name\n# of their signers is told. Read it, and try it with `sigwarden check`.\n")
	if staging {
		b.WriteString("trust:\n  sigstore: staging\n")
	}
	b.WriteString("watchlist:\n  - name: releases\n    match:\n")
	for _, item := range match {
		fmt.Fprintf(&b, "      - %s\n", item)
	}
	b.WriteString("    expect:\n")
	for _, item := range expect {
		fmt.Fprintf(&b, "      - %s\n", item)
	}
	b.WriteString(`# Who is told. Without channels, findings are kept for ` + "`sigwarden findings`" + `.
# notify:
#   channels:
#     - name: chat
#       slack: {webhook: env:SLACK_WEBHOOK}
`)
	return b.Bytes()
}

// repository is the source repository that a certificate names.
func (s *Signer) repository() string {
	if uri := s.Extensions["source-repository-uri"]; uri != "" {
		return uri
	}
	if name := s.Extensions["github-workflow-repository"]; name != "" {
		return "https://github.com/" + name // certificates of before that extension
	}
	return ""
}

// match is what is the signer's own: its repository, wherever the workflow is
// that signs, or its name.
func (s *Signer) match() []string {
	var items []string
	if len(s.Subjects) == 0 || s.Fingerprint != "" {
		items = append(items, "fingerprint: "+strconv.Quote(s.Fingerprint))
	}
	if uri := s.Extensions["source-repository-uri"]; uri != "" {
		items = append(items, fmt.Sprintf("extensions: {source-repository-uri: %s}", quoteGlob(uri)))
	} else if name := s.Extensions["github-workflow-repository"]; name != "" {
		items = append(items, fmt.Sprintf("extensions: {github-workflow-repository: %s}", quoteGlob(name)))
	}
	repository := s.repository()
	for _, subject := range s.Subjects {
		switch {
		case repository == "":
			items = append(items, "subject: "+subject.pattern())
		case subject.URI && strings.HasPrefix(subject.Value, repository+"/"):
			items = append(items, "subject: "+strconv.Quote(plainGlob(repository)+"/*"))
		}
		// Else a workflow of another repository, which others use too.
	}
	return items
}

// expect is how the signer signs.
func (s *Signer) expect() string {
	if len(s.Subjects) == 0 || s.Fingerprint != "" {
		return "fingerprint: " + strconv.Quote(s.Fingerprint)
	}
	var subjects, extensions []string
	for _, subject := range s.Subjects {
		subjects = append(subjects, subject.pattern())
	}
	parts := []string{"subject: " + oneOrList(subjects)}
	issuer := "none"
	if s.Issuer != "" {
		issuer = plainGlob(s.Issuer)
	}
	parts = append(parts, "issuer: "+strconv.Quote(issuer))
	names := []string{"runner-environment", "source-repository-uri", "source-repository-identifier", "source-repository-owner-identifier"}
	if s.Extensions["source-repository-uri"] == "" {
		names = append(names, "github-workflow-repository")
	}
	for _, name := range names {
		if value := s.Extensions[name]; value != "" {
			extensions = append(extensions, name+": "+quoteGlob(value))
		}
	}
	if len(extensions) > 0 {
		parts = append(parts, "extensions:\n          "+strings.Join(extensions, "\n          "))
	}
	return strings.Join(parts, "\n        ")
}

func quoteGlob(value string) string { return strconv.Quote(plainGlob(value)) }

func oneOrList(list []string) string {
	if len(list) == 1 {
		return list[0]
	}
	return "[" + strings.Join(list, ", ") + "]"
}

// versionTag is a tag with a version in it: what is before that stays.
var versionTag = regexp.MustCompile(`@refs/tags/([^0-9/]*)[0-9][^/]*$`)

// pattern is the glob that fits a subject; with the tag of a version, those of
// the other versions too. A glob with @ fits e-mail addresses only and one with
// :// URIs only: where the subject is something else, it is an expression.
func (s SignerSubject) pattern() string {
	uri := strings.Contains(s.Value, "://")
	mail := strings.Contains(s.Value, "@") && !uri
	if uri && !s.URI || mail && !s.Mail {
		return strconv.Quote("re:" + regexp.QuoteMeta(s.Value))
	}
	if place := versionTag.FindStringSubmatchIndex(s.Value); uri && place != nil {
		if place[2] == place[3] {
			// Nothing but the digit tells this tag from any other.
			return strconv.Quote("re:" + regexp.QuoteMeta(s.Value[:place[3]]) + "[0-9][^/]*")
		}
		return strconv.Quote(plainGlob(s.Value[:place[3]]) + "*")
	}
	return quoteGlob(s.Value)
}
