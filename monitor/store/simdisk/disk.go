// Package simdisk is a disk in memory for SQLite, for tests: power fails on it,
// writes tear, and it fills up, all as a test says.
//
// A disk tells what a process sees of its files from what would still be there
// after a power failure, which is what was synced, and any part of what was not:
// every 512-byte sector that was written since then may be the old one or the
// new one. A process that is killed loses nothing that it has written.
package simdisk

import (
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// sector is the least part of a file that is written whole.
const sector = 512

// Kind is what SQLite asks a disk for.
type Kind string

// Kinds of operations.
const (
	Open     Kind = "open"
	Read     Kind = "read"
	Write    Kind = "write"
	Truncate Kind = "truncate"
	Sync     Kind = "sync"
	Delete   Kind = "delete"
)

// Changes reports whether an operation changes what is on the disk, or how safely.
func (k Kind) Changes() bool { return k != Read && k != Open }

// Op is one operation on a file; Size is in bytes.
type Op struct {
	Kind Kind
	File string
	Size int
}

// Fault is what becomes of an operation.
type Fault int

// Faults.
const (
	None      Fault = iota
	Full            // it fails: no space is left
	Broken          // it fails: the disk reports an error
	Lost            // it is done, and the disk reports an error all the same
	ReadOnly        // it fails: the file system is mounted read-only
	CutBefore       // the process ends before it is done
	CutAfter        // the process ends once it is done
)

// Disk holds files. Its methods may be called by several goroutines.
type Disk struct {
	id string

	mu    sync.Mutex
	files map[string]*file
	gone  map[string]*file // deleted, and that is not synced
	boots int              // handles of earlier ones are dead
	down  bool
	hook  func(Op) Fault
	cut   func()
	ops   int // that change something
}

// file is what a name leads to.
type file struct {
	name    string
	content content // as processes see it
	durable content // as it was synced last
	known   bool    // the folder was synced since it was made
	pending []change
	shm     *shm
	handles int  // that are open
	deleted bool // and no failure brings it back

	shared              int
	reserved, exclusive *handle
	pendingLock         *handle
}

// change is a write, or, without data, a change of the size.
type change struct {
	at   int64
	data []byte
}

var (
	disks  sync.Map // *Disk by id
	lastID atomic.Int64
)

// New returns an empty disk.
func New() *Disk {
	register()
	d := &Disk{id: fmt.Sprintf("disk-%d", lastID.Add(1)), files: map[string]*file{}, gone: map[string]*file{}}
	disks.Store(d.id, d)
	return d
}

// Close forgets the disk. Every database on it must be closed.
func (d *Disk) Close() {
	disks.Delete(d.id)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.down = true // whoever still holds a file of it reads and writes nothing
	for _, f := range d.files {
		f.shm.free()
		f.free()
	}
}

// Path is the path under which SQLite finds a file.
func (d *Disk) Path(name string) string { return "/" + d.id + "/" + name }

// find returns the disk and the name that a path leads to.
func find(path string) (*Disk, string, bool) {
	id, name, ok := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	d, found := disks.Load(id)
	if !ok || !found {
		return nil, "", false
	}
	return d.(*Disk), name, true
}

// Put makes a file, safely.
func (d *Disk) Put(name string, data []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.files[name] = &file{name: name, content: contentOf(data), durable: contentOf(data), known: true}
}

// Get returns what a process would read of a file.
func (d *Disk) Get(name string) ([]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f := d.files[name]
	if f == nil {
		return nil, fmt.Errorf("%s: %w", name, fs.ErrNotExist)
	}
	return f.content.bytes(), nil
}

// Names returns the names of all files.
func (d *Disk) Names() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Sorted(maps.Keys(d.files))
}

// Clone returns a copy of the disk as a process would find it.
func (d *Disk) Clone() *Disk {
	c := New()
	d.mu.Lock()
	defer d.mu.Unlock()
	for name, f := range d.files {
		c.files[name] = &file{name: name, content: f.content.clone(), durable: f.content.clone(), known: true}
	}
	return c
}

// Inject sets what becomes of operations; nil: nothing bad. hook must not use the disk.
func (d *Disk) Inject(hook func(Op) Fault) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.hook = hook
}

// OnCut sets what is called, once, when a process ends within an operation.
func (d *Disk) OnCut(f func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.cut = f
}

// Ops counts the operations so far that changed something.
func (d *Disk) Ops() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.ops
}

// Kill ends the process that uses the disk: nothing that it asks for from now on is
// done. What it had written stays.
func (d *Disk) Kill() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.kill()
}

func (d *Disk) kill() {
	if d.down {
		return
	}
	d.down = true
	if d.cut != nil {
		d.cut()
	}
}

// Boot lets a new process use the disk.
func (d *Disk) Boot() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.boots++
	d.down = false
	for _, f := range d.files {
		f.unlock()
		f.shm.free()
		f.shm = nil
	}
}

// drop forgets a file that was deleted, once nobody has it open.
func (f *file) drop() {
	if f == nil {
		return
	}
	if f.deleted = true; f.handles == 0 {
		f.free()
	}
}

// free gives up what is in the file.
func (f *file) free() {
	f.content.free()
	f.durable.free()
	f.pending = nil
}

func (f *file) unlock() {
	f.shared, f.reserved, f.exclusive, f.pendingLock = 0, nil, nil, nil
}

// PowerFails ends the process, and loses what was not synced, or a part of it: kept is
// the share of sectors that reached the disk.
func (d *Disk) PowerFails(rng *rand.Rand, kept float64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.kill()
	for _, name := range slices.Sorted(maps.Keys(d.gone)) {
		if _, again := d.files[name]; !again && rng.Float64() >= kept {
			d.files[name] = d.gone[name]
		} else {
			d.gone[name].drop()
		}
	}
	d.gone = map[string]*file{}
	for _, name := range slices.Sorted(maps.Keys(d.files)) {
		f := d.files[name]
		if !f.known && rng.Float64() >= kept {
			f.shm.free()
			f.drop()
			delete(d.files, name)
			continue
		}
		f.lose(rng, kept)
	}
}

// lose makes of a file what a power failure leaves.
func (f *file) lose(rng *rand.Rand, kept float64) {
	left := &f.durable
	for _, c := range f.pending {
		if c.data == nil {
			if rng.Float64() < kept {
				left.resize(c.at)
			}
			continue
		}
		for from := 0; from < len(c.data); {
			// Sectors lie where they lie in the file, not in the write.
			to := min(from+sector-int((c.at+int64(from))%sector), len(c.data))
			if rng.Float64() < kept {
				left.put(c.at+int64(from), c.data[from:to])
			}
			from = to
		}
	}
	f.content.free()
	f.content, f.pending, f.known = left.clone(), nil, true
}

// sync makes what was written durable.
func (f *file) sync() {
	for _, c := range f.pending {
		if c.data == nil {
			f.durable.resize(c.at)
		} else {
			f.durable.put(c.at, c.data)
		}
	}
	f.pending, f.known = nil, true
}

// begin asks what becomes of an operation; it reports whether it is to be done, and the
// fault to report. The disk is locked.
func (d *Disk) begin(h *handle, op Op) (do bool, fault Fault) {
	if d.down || h != nil && h.boot != d.boots {
		return false, CutBefore
	}
	if op.Kind.Changes() {
		d.ops++
	}
	if d.hook == nil {
		return true, None
	}
	switch fault := d.hook(op); fault {
	case None:
		return true, None
	case Lost:
		return true, fault
	case CutAfter:
		d.kill()
		return true, fault
	case CutBefore:
		d.kill()
		return false, fault
	default:
		return false, fault
	}
}
