package simdisk

import (
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"modernc.org/libc"
	sqlite3 "modernc.org/sqlite/lib"
)

// Name is what SQLite knows these disks by: the parameter vfs of a file's URL.
const Name = "sigwarden-simdisk"

// handle is an open file of one connection.
type handle struct {
	disk *Disk
	file *file
	boot int
	// level is the lock on the file, shared those on parts of the shared memory, one bit
	// each.
	level             int32
	shared            uint16
	temporary, remove bool
}

// shm is the memory that connections to one file share: the index of its log of changes.
type shm struct {
	regions   []uintptr
	shared    [8]int
	exclusive [8]*handle
}

func (s *shm) free() {
	if s == nil {
		return
	}
	for _, p := range s.regions {
		libc.Xfree(tls, p)
	}
	s.regions = nil
}

var (
	handles    sync.Map // *handle by number
	lastHandle atomic.Uint64
	methods    = sqlite3.Tsqlite3_io_methods{FiVersion: 2}
	system     = sqlite3.Tsqlite3_vfs{FiVersion: 2, FszOsFile: int32(unsafe.Sizeof(osFile{})), FmxPathname: 512}
	tls        *libc.TLS
)

// osFile is what SQLite keeps of an open file.
type osFile struct {
	sqlite3.Tsqlite3_file
	number uint64
}

// set makes a function of Go one that SQLite can call: its generated code calls through the
// address of a function value.
func set[F any](field *uintptr, f F) { *(*F)(unsafe.Pointer(field)) = f }

// at is memory of SQLite's.
func at[T any](p uintptr) *T { return *(**T)(unsafe.Pointer(&p)) }

func slice(p uintptr, n int32) []byte { return unsafe.Slice(at[byte](p), n) }

// register tells SQLite of these disks, once. If it does not take them, whoever opens a database
// is told that there is no such VFS.
var register = sync.OnceFunc(func() {
	tls = libc.NewTLS()
	name, err := libc.CString(Name)
	if err != nil {
		return
	}
	system.FzName = name
	set(&system.FxOpen, open)
	set(&system.FxDelete, remove)
	set(&system.FxAccess, access)
	set(&system.FxFullPathname, fullPathname)
	set(&system.FxRandomness, randomness)
	set(&system.FxSleep, sleep)
	set(&system.FxCurrentTime, currentTime)
	set(&system.FxCurrentTimeInt64, currentTimeInt64)
	set(&methods.FxClose, closeFile)
	set(&methods.FxRead, read)
	set(&methods.FxWrite, write)
	set(&methods.FxTruncate, truncate)
	set(&methods.FxSync, syncFile)
	set(&methods.FxFileSize, fileSize)
	set(&methods.FxLock, lock)
	set(&methods.FxUnlock, unlock)
	set(&methods.FxCheckReservedLock, checkReservedLock)
	set(&methods.FxFileControl, fileControl)
	set(&methods.FxSectorSize, sectorSize)
	set(&methods.FxDeviceCharacteristics, deviceCharacteristics)
	set(&methods.FxShmMap, shmMap)
	set(&methods.FxShmLock, shmLock)
	set(&methods.FxShmBarrier, shmBarrier)
	set(&methods.FxShmUnmap, shmUnmap)
	sqlite3.Xsqlite3_vfs_register(tls, uintptr(unsafe.Pointer(&system)), 0)
})

func of(p uintptr) *handle {
	h, _ := handles.Load(at[osFile](p).number)
	return h.(*handle)
}

// code is what SQLite is told of a fault.
func (f Fault) code(failed int32) int32 {
	switch f {
	case None:
		return sqlite3.SQLITE_OK
	case Full:
		return sqlite3.SQLITE_FULL
	case ReadOnly:
		return sqlite3.SQLITE_READONLY
	}
	return failed
}

func open(_ *libc.TLS, _, zName, pFile uintptr, flags int32, pOut uintptr) int32 {
	at[osFile](pFile).FpMethods = 0 // until it is open
	h := &handle{temporary: zName == 0}
	if h.temporary {
		h.disk, h.file = &Disk{files: map[string]*file{}}, &file{}
	} else {
		d, name, ok := find(libc.GoString(zName))
		if !ok {
			return sqlite3.SQLITE_CANTOPEN
		}
		d.mu.Lock()
		defer d.mu.Unlock()
		do, fault := d.begin(nil, Op{Kind: Open, File: name})
		if !do {
			return fault.code(sqlite3.SQLITE_CANTOPEN)
		}
		h.disk, h.boot, h.file = d, d.boots, d.files[name]
		if h.file == nil {
			if flags&sqlite3.SQLITE_OPEN_CREATE == 0 {
				return sqlite3.SQLITE_CANTOPEN
			}
			h.file = &file{name: name}
			d.files[name] = h.file
		}
		h.remove = flags&sqlite3.SQLITE_OPEN_DELETEONCLOSE != 0
	}
	h.file.handles++
	f := at[osFile](pFile)
	f.number = lastHandle.Add(1)
	handles.Store(f.number, h)
	f.FpMethods = uintptr(unsafe.Pointer(&methods))
	if pOut != 0 {
		*at[int32](pOut) = flags
	}
	return sqlite3.SQLITE_OK
}

func closeFile(_ *libc.TLS, pFile uintptr) int32 {
	h := of(pFile)
	handles.Delete(at[osFile](pFile).number)
	h.disk.mu.Lock()
	defer h.disk.mu.Unlock()
	if h.file.handles--; h.temporary || h.file.deleted && h.file.handles == 0 {
		h.file.free()
	}
	if h.boot != h.disk.boots {
		return sqlite3.SQLITE_OK
	}
	h.setLevel(sqlite3.SQLITE_LOCK_NONE)
	if h.remove {
		delete(h.disk.files, h.file.name)
	}
	return sqlite3.SQLITE_OK
}

func read(_ *libc.TLS, pFile, buf uintptr, n int32, from int64) int32 {
	h := of(pFile)
	h.disk.mu.Lock()
	defer h.disk.mu.Unlock()
	if do, fault := h.disk.begin(h, Op{Read, h.file.name, int(n)}); !do {
		return fault.code(sqlite3.SQLITE_IOERR_READ)
	}
	to := slice(buf, n)
	if got := h.file.content.read(to, from); got < len(to) {
		clear(to[got:])
		return sqlite3.SQLITE_IOERR_SHORT_READ
	}
	return sqlite3.SQLITE_OK
}

func write(_ *libc.TLS, pFile, buf uintptr, n int32, to int64) int32 {
	h := of(pFile)
	h.disk.mu.Lock()
	defer h.disk.mu.Unlock()
	do, fault := h.disk.begin(h, Op{Write, h.file.name, int(n)})
	if do {
		data := slices.Clone(slice(buf, n))
		h.file.content.put(to, data)
		if !h.temporary {
			h.file.pending = append(h.file.pending, change{to, data})
		}
	}
	return fault.code(sqlite3.SQLITE_IOERR_WRITE)
}

func truncate(_ *libc.TLS, pFile uintptr, size int64) int32 {
	h := of(pFile)
	h.disk.mu.Lock()
	defer h.disk.mu.Unlock()
	do, fault := h.disk.begin(h, Op{Truncate, h.file.name, int(size)})
	if do {
		h.file.content.resize(size)
		h.file.pending = append(h.file.pending, change{at: size})
	}
	return fault.code(sqlite3.SQLITE_IOERR_TRUNCATE)
}

func syncFile(_ *libc.TLS, pFile uintptr, _ int32) int32 {
	h := of(pFile)
	h.disk.mu.Lock()
	defer h.disk.mu.Unlock()
	do, fault := h.disk.begin(h, Op{Kind: Sync, File: h.file.name})
	if do {
		h.file.sync()
	}
	return fault.code(sqlite3.SQLITE_IOERR_FSYNC)
}

func fileSize(_ *libc.TLS, pFile, pSize uintptr) int32 {
	h := of(pFile)
	h.disk.mu.Lock()
	defer h.disk.mu.Unlock()
	*at[int64](pSize) = h.file.content.size
	return sqlite3.SQLITE_OK
}

func remove(_ *libc.TLS, _, zPath uintptr, syncFolder int32) int32 {
	d, name, ok := find(libc.GoString(zPath))
	if !ok {
		return sqlite3.SQLITE_IOERR_DELETE
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	f := d.files[name]
	if f == nil {
		return sqlite3.SQLITE_IOERR_DELETE_NOENT
	}
	do, fault := d.begin(nil, Op{Kind: Delete, File: name})
	if do {
		delete(d.files, name)
		if syncFolder == 0 && f.known {
			d.gone[name].drop()
			d.gone[name] = f
		} else {
			f.drop()
		}
	}
	return fault.code(sqlite3.SQLITE_IOERR_DELETE)
}

func access(_ *libc.TLS, _, zPath uintptr, _ int32, pOut uintptr) int32 {
	there := int32(0)
	if d, name, ok := find(libc.GoString(zPath)); ok {
		d.mu.Lock()
		if _, ok := d.files[name]; ok {
			there = 1
		}
		d.mu.Unlock()
	}
	*at[int32](pOut) = there
	return sqlite3.SQLITE_OK
}

func fullPathname(_ *libc.TLS, _, zPath uintptr, n int32, out uintptr) int32 {
	path := libc.GoString(zPath)
	if len(path) >= int(n) {
		return sqlite3.SQLITE_CANTOPEN
	}
	to := slice(out, n)
	to[copy(to, path)] = 0
	return sqlite3.SQLITE_OK
}

func randomness(_ *libc.TLS, _ uintptr, n int32, out uintptr) int32 {
	for i := range slice(out, n) {
		slice(out, n)[i] = byte(rand.Uint32())
	}
	return n
}

func sleep(_ *libc.TLS, _ uintptr, micros int32) int32 {
	time.Sleep(time.Duration(micros) * time.Microsecond)
	return micros
}

// julian is the epoch of Unix in SQLite's time, in milliseconds.
const julian = 210866760000000

func currentTimeInt64(_ *libc.TLS, _, out uintptr) int32 {
	*at[int64](out) = julian + time.Now().UnixMilli()
	return sqlite3.SQLITE_OK
}

func currentTime(_ *libc.TLS, _, out uintptr) int32 {
	*at[float64](out) = float64(julian+time.Now().UnixMilli()) / 86400000
	return sqlite3.SQLITE_OK
}

func fileControl(*libc.TLS, uintptr, int32, uintptr) int32 { return sqlite3.SQLITE_NOTFOUND }

func sectorSize(*libc.TLS, uintptr) int32 { return 4096 }

func deviceCharacteristics(*libc.TLS, uintptr) int32 {
	return sqlite3.SQLITE_IOCAP_POWERSAFE_OVERWRITE
}
