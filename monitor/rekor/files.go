package rekor

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
)

// files reads resources from a directory.
type files struct {
	dir          string
	reads, bytes atomic.Int64
}

func newFiles(text string) (*files, error) {
	u, err := url.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("url: %w", err)
	}
	if u.Host != "" && u.Host != "localhost" || u.Path == "" || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("url %q: a directory is written file:///dir", text)
	}
	path := u.Path
	if runtime.GOOS == "windows" {
		path = strings.TrimPrefix(path, "/") // file:///C:/dir
	}
	return &files{dir: filepath.FromSlash(path)}, nil
}

func (f *files) read(ctx context.Context, path string, limit int64, room func(int64) (*[]byte, error)) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	file, err := os.Open(filepath.Join(f.dir, filepath.FromSlash(path)))
	if err != nil {
		return nil, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, &MalformedError{path, "not a regular file"}
	}
	size := min(info.Size(), limit)
	memory, err := roomFor(room, size)
	if err != nil {
		return nil, err
	}
	body, err := readAll(io.LimitReader(file, limit+1), size+1, memory)
	if err != nil {
		return nil, err
	}
	if int64(len(body)) > limit {
		return nil, &MalformedError{path, fmt.Sprintf("file is longer than %d bytes", limit)}
	}
	f.reads.Add(1)
	f.bytes.Add(int64(len(body)))
	return body, nil
}
