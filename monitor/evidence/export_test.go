package evidence

import "bytes"

// Pack packs altered contents in the form that evidence has, for tests of what
// is in it.
func Pack(files map[string][]byte, names ...string) []byte {
	var list []member
	for _, name := range names {
		list = append(list, member{name, files[name]})
	}
	var b bytes.Buffer
	if err := writeArchive(&b, list); err != nil {
		panic(err)
	}
	return b.Bytes()
}

// Names lists contents in the order of an archive.
func Names(files map[string][]byte) (names []string) {
	var list []member
	for name := range files {
		list = append(list, member{name: name})
	}
	sortMembers(list)
	for _, m := range list {
		names = append(names, m.name)
	}
	return names
}
