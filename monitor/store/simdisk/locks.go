package simdisk

import (
	"modernc.org/libc"
	sqlite3 "modernc.org/sqlite/lib"
)

// Locks as SQLite's documentation of its file locking has them: many may read, one
// may intend to write, and one that writes waits for those that read, and lets no
// new ones in.

func lock(_ *libc.TLS, pFile uintptr, want int32) int32 {
	h := of(pFile)
	h.disk.mu.Lock()
	defer h.disk.mu.Unlock()
	f := h.file
	if h.level >= want || h.temporary {
		h.level = max(h.level, want)
		return sqlite3.SQLITE_OK
	}
	if h.boot != h.disk.boots {
		return sqlite3.SQLITE_IOERR_LOCK
	}
	switch want {
	case sqlite3.SQLITE_LOCK_SHARED:
		if f.exclusive != nil || f.pendingLock != nil {
			return sqlite3.SQLITE_BUSY
		}
		f.shared++
	case sqlite3.SQLITE_LOCK_RESERVED:
		if f.reserved != nil && f.reserved != h {
			return sqlite3.SQLITE_BUSY
		}
		f.reserved = h
	case sqlite3.SQLITE_LOCK_EXCLUSIVE:
		if f.pendingLock != nil && f.pendingLock != h || f.reserved != nil && f.reserved != h {
			return sqlite3.SQLITE_BUSY
		}
		f.pendingLock = h
		if f.shared > 1 {
			h.level = max(h.level, sqlite3.SQLITE_LOCK_PENDING)
			return sqlite3.SQLITE_BUSY
		}
		f.exclusive = h
	}
	h.level = want
	return sqlite3.SQLITE_OK
}

func unlock(_ *libc.TLS, pFile uintptr, level int32) int32 {
	h := of(pFile)
	h.disk.mu.Lock()
	defer h.disk.mu.Unlock()
	if h.boot == h.disk.boots {
		h.setLevel(level)
	}
	return sqlite3.SQLITE_OK
}

// setLevel goes down to a lock. The disk is locked.
func (h *handle) setLevel(level int32) {
	if h.level <= level {
		return
	}
	f := h.file
	for _, held := range []**handle{&f.reserved, &f.pendingLock, &f.exclusive} {
		if *held == h {
			*held = nil
		}
	}
	if level == sqlite3.SQLITE_LOCK_NONE && h.level >= sqlite3.SQLITE_LOCK_SHARED {
		f.shared--
	}
	h.level = level
}

func checkReservedLock(_ *libc.TLS, pFile, out uintptr) int32 {
	h := of(pFile)
	h.disk.mu.Lock()
	defer h.disk.mu.Unlock()
	*at[int32](out) = 0
	if h.file.reserved != nil || h.file.pendingLock != nil {
		*at[int32](out) = 1
	}
	return sqlite3.SQLITE_OK
}

func shmMap(_ *libc.TLS, pFile uintptr, region, size, extend int32, out uintptr) int32 {
	h := of(pFile)
	h.disk.mu.Lock()
	defer h.disk.mu.Unlock()
	*at[uintptr](out) = 0
	if h.boot != h.disk.boots {
		return sqlite3.SQLITE_IOERR_SHMMAP
	}
	if h.file.shm == nil {
		h.file.shm = &shm{}
	}
	s := h.file.shm
	for int(region) >= len(s.regions) {
		if extend == 0 {
			return sqlite3.SQLITE_OK
		}
		p := libc.Xcalloc(tls, 1, uint64(size))
		if p == 0 {
			return sqlite3.SQLITE_NOMEM
		}
		s.regions = append(s.regions, p)
	}
	*at[uintptr](out) = s.regions[region]
	return sqlite3.SQLITE_OK
}

func shmLock(_ *libc.TLS, pFile uintptr, first, n, flags int32) int32 {
	h := of(pFile)
	h.disk.mu.Lock()
	defer h.disk.mu.Unlock()
	s := h.file.shm
	if h.boot != h.disk.boots || s == nil {
		return sqlite3.SQLITE_IOERR_SHMLOCK
	}
	for i := first; i < first+n; i++ {
		other := s.exclusive[i] != nil && s.exclusive[i] != h
		own := 0
		if h.shared&(1<<i) != 0 {
			own = 1
		}
		if flags&sqlite3.SQLITE_SHM_LOCK != 0 && (other || flags&sqlite3.SQLITE_SHM_EXCLUSIVE != 0 && s.shared[i] > own) {
			return sqlite3.SQLITE_BUSY
		}
	}
	for i := first; i < first+n; i++ {
		bit := uint16(1) << i
		switch {
		case flags&sqlite3.SQLITE_SHM_LOCK != 0 && flags&sqlite3.SQLITE_SHM_EXCLUSIVE != 0:
			s.exclusive[i] = h
		case flags&sqlite3.SQLITE_SHM_LOCK != 0 && h.shared&bit == 0:
			h.shared |= bit
			s.shared[i]++
		case flags&sqlite3.SQLITE_SHM_UNLOCK != 0:
			if s.exclusive[i] == h {
				s.exclusive[i] = nil
			}
			if h.shared&bit != 0 {
				h.shared &^= bit
				s.shared[i]--
			}
		}
	}
	return sqlite3.SQLITE_OK
}

// shmBarrier orders accesses to shared memory: the lock is the barrier.
func shmBarrier(_ *libc.TLS, pFile uintptr) {
	h := of(pFile)
	h.disk.mu.Lock()
	defer h.disk.mu.Unlock()
}

func shmUnmap(_ *libc.TLS, pFile uintptr, _ int32) int32 {
	h := of(pFile)
	h.disk.mu.Lock()
	defer h.disk.mu.Unlock()
	s := h.file.shm
	if h.boot != h.disk.boots || s == nil {
		return sqlite3.SQLITE_OK
	}
	for i := range s.shared {
		if s.exclusive[i] == h {
			s.exclusive[i] = nil
		}
		if h.shared&(1<<i) != 0 {
			s.shared[i]--
		}
	}
	h.shared = 0
	return sqlite3.SQLITE_OK
}
