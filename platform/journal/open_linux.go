package journal

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// compactBytes is the size from which on the file is rewritten when most of it is forgotten records.
const compactBytes = 256 << 10

// CurrentScope returns the boot and the network namespace of the calling thread. The namespace is named by
// its cookie (SO_NETNS_COOKIE, Linux 5.14), which is never used twice during a boot, or else by the inode of
// its file.
func CurrentScope() (Scope, error) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return Scope{}, fmt.Errorf("read the boot id: %w", err)
	}
	netns, err := netnsName()
	if err != nil {
		return Scope{}, fmt.Errorf("name the network namespace: %w", err)
	}
	return Scope{Boot: strings.TrimSpace(string(boot)), Netns: netns}, nil
}

func netnsName() (string, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	defer func() { _ = unix.Close(fd) }()
	cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	if err == nil {
		return fmt.Sprintf("cookie:%d", cookie), nil
	}
	// The thread's own file: /proc/self would be that of the process's first thread.
	var st unix.Stat_t
	if err := unix.Stat("/proc/thread-self/ns/net", &st); err != nil {
		return "", err
	}
	return fmt.Sprintf("inode:%d", st.Ino), nil
}

// Open opens the journal of a state directory in the calling thread's network namespace, and makes it if it
// is not there. The directory must exist. Errors: [ErrLocked], [ErrFormat], or of the file system.
func Open(dir string) (*Journal, error) {
	scope, err := CurrentScope()
	if err != nil {
		return nil, fmt.Errorf("open the undo journal: %w", err)
	}
	return OpenIn(dir, scope)
}

// OpenIn is [Open] with the scope given.
func OpenIn(dir string, scope Scope) (*Journal, error) {
	j := &Journal{path: filepath.Join(dir, FileName), scope: scope}
	file, err := lockFile(j.path)
	if err != nil {
		return nil, fmt.Errorf("open the undo journal: %w", err)
	}
	j.file = file
	if err := j.load(); err != nil {
		return nil, errors.Join(fmt.Errorf("open the undo journal %s: %w", j.path, err), j.file.Close())
	}
	return j, nil
}

// lockFile opens and locks the file that has the name now: a rewrite by the previous owner may have replaced
// it between our open and our lock.
func lockFile(path string) (*os.File, error) {
	for range 16 {
		file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
		if err != nil {
			return nil, err
		}
		if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			closeErr := file.Close()
			if errors.Is(err, unix.EWOULDBLOCK) {
				return nil, ErrLocked
			}
			return nil, errors.Join(err, closeErr)
		}
		opened, err := file.Stat()
		named, nameErr := os.Lstat(path)
		if err == nil && nameErr == nil && os.SameFile(opened, named) {
			return file, nil
		}
		if err := file.Close(); err != nil {
			return nil, err
		}
	}
	return nil, ErrLocked
}

// load reads the file and drops what is void, torn or damaged.
func (j *Journal) load() error {
	data, err := io.ReadAll(io.LimitReader(j.file, MaxFileBytes+1))
	if err != nil {
		return err
	}
	if len(data) > MaxFileBytes {
		return fmt.Errorf("%w: more than %d bytes", ErrFormat, MaxFileBytes)
	}
	p, err := parse(data)
	if err != nil {
		return err
	}
	j.opened.damaged = p.damaged
	j.nextID = p.lastID + 1
	j.entries = j.inScope(p.entries)
	j.sizeByte = p.wholeBytes
	if p.wholeBytes == 0 {
		return j.start()
	}
	if int64(len(data)) > p.wholeBytes {
		if err := j.file.Truncate(p.wholeBytes); err != nil {
			return err
		}
	}
	switch {
	case len(j.entries) == 0:
		return j.resetLocked()
	case p.damaged > 0 || len(j.entries) < len(p.entries):
		// On a full disk the undoing must still go on, and the lines to drop do no harm.
		if err := j.rewriteLocked(); err != nil && (j.broken != nil || !errors.Is(err, unix.ENOSPC)) {
			return err
		}
	}
	return nil
}

// start gives an empty file its header.
func (j *Journal) start() error {
	if err := j.file.Truncate(0); err != nil {
		return err
	}
	if _, err := j.file.WriteAt([]byte(header), 0); err != nil {
		return err
	}
	if err := j.file.Sync(); err != nil {
		return err
	}
	j.sizeByte = int64(len(header))
	return syncDir(filepath.Dir(j.path))
}

// inScope drops the records of other boots and bounds those of other namespaces.
func (j *Journal) inScope(entries []entry) []entry {
	elsewhere := 0
	for _, e := range entries {
		if e.record.Scope.Boot == j.scope.Boot && e.record.Scope != j.scope {
			elsewhere++
		}
	}
	kept := entries[:0:0]
	for _, e := range entries {
		switch {
		case e.record.Scope.Boot != j.scope.Boot:
			j.opened.void++
		case e.record.Scope != j.scope && elsewhere > MaxElsewhere:
			elsewhere--
			j.opened.evicted++
		default:
			kept = append(kept, e)
		}
	}
	return kept
}

// compactIfWorthLocked rewrites the file when most of a large file is forgotten records. A failure is no
// reason to refuse a record: the file is still whole, and its own bound stops its growth.
func (j *Journal) compactIfWorthLocked() error {
	if j.sizeByte < compactBytes {
		return nil
	}
	live := int64(0)
	for _, e := range j.entries {
		live += int64(len(e.record.Body)) + 256
	}
	if live*2 > j.sizeByte {
		return nil
	}
	err := j.rewriteLocked()
	if err != nil && j.broken == nil && errors.Is(err, unix.ENOSPC) {
		return nil
	}
	return err
}

// rewriteLocked replaces the file by one that holds only the pending entries. The new file is locked before
// it has the name, so no second process can slip in.
func (j *Journal) rewriteLocked() error {
	content := []byte(header)
	offsets := make([]int64, len(j.entries))
	for i, e := range j.entries {
		offsets[i] = int64(len(content))
		var err error
		if content, err = appendLine(content, e.record); err != nil {
			return err
		}
	}
	file, err := j.writeTemp(content)
	if err != nil {
		return errors.Join(fmt.Errorf("rewrite the journal: %w", err), removeIfThere(j.tempPath()))
	}
	if err := os.Rename(j.tempPath(), j.path); err != nil {
		return errors.Join(fmt.Errorf("rewrite the journal: %w", err), file.Close(), removeIfThere(j.tempPath()))
	}
	closeErr := j.file.Close()
	j.file, j.sizeByte = file, int64(len(content))
	for i := range j.entries {
		j.entries[i].offset = offsets[i]
	}
	if err := errors.Join(closeErr, syncDir(filepath.Dir(j.path))); err != nil {
		j.broken = err
		return fmt.Errorf("rewrite the journal: %w", err)
	}
	return nil
}

func (j *Journal) writeTemp(content []byte) (*os.File, error) {
	if err := removeIfThere(j.tempPath()); err != nil {
		return nil, err
	}
	file, err := os.OpenFile(j.tempPath(), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		_, err = file.Write(content)
	}
	if err == nil {
		err = file.Sync()
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// tempPath is the file that a rewrite builds before it takes the journal's name.
func (j *Journal) tempPath() string { return filepath.Join(filepath.Dir(j.path), FileName+".new") }
