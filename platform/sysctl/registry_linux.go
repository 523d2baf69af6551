package sysctl

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/aethertunnel/aethertunnel/platform/journal"
)

const (
	procSys       = "/proc/sys"
	lockName      = "lock"
	lockTries     = 500
	lockPause     = 10 * time.Millisecond
	maxEntryBytes = 1 << 20
)

// holder is one daemon. PID and start time together name a process of this boot.
type holder struct {
	StateDir   string `json:"state_dir"`
	PID        int    `json:"pid"`
	StartTicks uint64 `json:"start_ticks"`
}

func ownHolder(stateDir string) (holder, error) {
	abs, err := filepath.Abs(stateDir)
	if err != nil {
		return holder{}, err
	}
	start, err := startTicks(os.Getpid())
	if err != nil {
		return holder{}, err
	}
	return holder{StateDir: abs, PID: os.Getpid(), StartTicks: start}, nil
}

func (h holder) sameState(o holder) bool { return h.StateDir == o.StateDir }

func (h holder) alive() bool {
	start, err := startTicks(h.PID)
	return err == nil && start == h.StartTicks
}

// startTicks reads field 22 of /proc/PID/stat. The command name, field 2, may hold anything, so fields are
// counted from its closing parenthesis.
func startTicks(pid int) (uint64, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	rest := string(data[strings.LastIndexByte(string(data), ')')+1:])
	fields := strings.Fields(rest)
	if len(fields) < 20 {
		return 0, fmt.Errorf("process %d: unreadable stat", pid)
	}
	if state := fields[0]; state == "Z" || state == "X" {
		return 0, os.ErrProcessDone
	}
	return strconv.ParseUint(fields[19], 10, 64)
}

// registryEntry is the content of a holder file.
type registryEntry struct {
	Key     string            `json:"key"`
	Scope   journal.Scope     `json:"scope"`
	Set     string            `json:"set"`
	Before  string            `json:"before"`
	Spreads map[string]string `json:"spreads,omitempty"`
	Holders []holder          `json:"holders"`
}

// registry is the locked directory of holder files.
type registry struct {
	dir   string
	scope journal.Scope
}

// withRegistry runs do under the lock.
func withRegistry(dir string, scope journal.Scope, do func(*registry) error) (err error) {
	r := &registry{dir: filepath.Join(dir, "sysctl"), scope: scope}
	if err := r.prepare(dir); err != nil {
		return err
	}
	lock, err := os.OpenFile(filepath.Join(r.dir, lockName), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	if err := acquire(lock); err != nil {
		return err
	}
	return do(r)
}

// prepare makes the directory and refuses one that somebody else can write: its files decide what root writes
// to /proc/sys.
func (r *registry) prepare(parent string) error {
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return err
	}
	if err := os.Mkdir(r.dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	var st unix.Stat_t
	if err := unix.Lstat(r.dir, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR || int(st.Uid) != os.Geteuid() || st.Mode&0o022 != 0 {
		return fmt.Errorf("%w: %s", ErrDir, r.dir)
	}
	return nil
}

func acquire(lock *os.File) error {
	for range lockTries {
		err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return err
		}
		time.Sleep(lockPause)
	}
	return ErrBusy
}

func (r *registry) path(key string) string {
	sum := sha256.Sum256([]byte(r.scope.Boot + "\n" + r.scope.Netns + "\n" + key))
	return filepath.Join(r.dir, hex.EncodeToString(sum[:16])+".json")
}

func (r *registry) load(key string) (e registryEntry, found bool, err error) {
	file, err := os.OpenFile(r.path(key), os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if errors.Is(err, os.ErrNotExist) {
		return e, false, nil
	}
	if err != nil {
		return e, false, err
	}
	data, err := io.ReadAll(io.LimitReader(file, maxEntryBytes))
	if err := errors.Join(err, file.Close()); err != nil {
		return e, false, err
	}
	if e, err = parseEntry(data); err != nil {
		return e, false, fmt.Errorf("holder file %s: %w", r.path(key), err)
	}
	if e.Key != key || e.Scope != r.scope {
		return e, false, fmt.Errorf("holder file %s: %w: is of %q", r.path(key), ErrKey, e.Key)
	}
	return e, true, nil
}

func parseEntry(data []byte) (registryEntry, error) {
	var e registryEntry
	if err := json.Unmarshal(data, &e); err != nil {
		return registryEntry{}, err
	}
	s := Setting{Key: e.Key, Value: e.Set}
	for key, value := range e.Spreads {
		s.Spreads = append(s.Spreads, key)
		if err := (Setting{Key: key, Value: value}).Validate(); err != nil {
			return registryEntry{}, err
		}
	}
	if err := errors.Join(s.Validate(), Setting{Key: e.Key, Value: e.Before}.Validate()); err != nil {
		return registryEntry{}, err
	}
	return e, nil
}

// store replaces the holder file as a whole.
func (r *registry) store(e registryEntry) error {
	e.Scope = r.scope
	data, err := json.Marshal(e)
	if err != nil {
		return err
	}
	if len(data) > maxEntryBytes {
		return ErrTooMany
	}
	path := r.path(e.Key)
	file, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(data)
	if err == nil {
		err = file.Sync()
	}
	if err := errors.Join(err, file.Close()); err != nil {
		return errors.Join(err, os.Remove(path+".new"))
	}
	return os.Rename(path+".new", path)
}

// leave removes the holders that gone selects. When none is left the parameter is restored and the file
// removed, in this order, so that a crash between the two finds the file and has nothing left to do.
func (r *registry) leave(key string, gone func(holder) bool) ([]journal.Left, error) {
	e, found, err := r.load(key)
	if err != nil || !found {
		return nil, err
	}
	before := len(e.Holders)
	e.Holders = slices.DeleteFunc(e.Holders, gone)
	if len(e.Holders) > 0 {
		if len(e.Holders) == before {
			return nil, nil
		}
		return nil, r.store(e)
	}
	left, err := e.restore()
	if err != nil {
		return left, err
	}
	return left, os.Remove(r.path(key))
}

// restore writes back what was there before, if the parameter still has our value.
func (e registryEntry) restore() ([]journal.Left, error) {
	current, err := Read(e.Key)
	if errors.Is(err, ErrNoKey) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	switch current {
	case e.Before:
		return nil, nil
	case e.Set:
	default:
		return []journal.Left{{Thing: thing(e.Key), Set: e.Set, Found: current}}, nil
	}
	now := map[string]string{}
	for key := range e.Spreads {
		if value, err := Read(key); err == nil {
			now[key] = value
		} else if !errors.Is(err, ErrNoKey) {
			return nil, err
		}
	}
	if err := write(e.Key, e.Before); err != nil {
		return nil, err
	}
	return e.restoreSpreads(now)
}

// restoreSpreads puts back the parameters that writing the key has just overwritten: to the value from before
// we came, or to the one that somebody else gave them since.
func (e registryEntry) restoreSpreads(now map[string]string) ([]journal.Left, error) {
	var left []journal.Left
	for key, before := range e.Spreads {
		value, ok := now[key]
		if !ok {
			continue
		}
		target := before
		if value != e.Set {
			target = value
			if value != before {
				left = append(left, journal.Left{Thing: thing(key), Set: e.Set, Found: value})
			}
		}
		current, err := Read(key)
		if errors.Is(err, ErrNoKey) || (err == nil && current == target) {
			continue
		}
		if err == nil {
			err = write(key, target)
		}
		if err != nil && !errors.Is(err, ErrNoKey) {
			return left, err
		}
	}
	return left, nil
}

// Read returns a parameter's value without surrounding space. Errors: [ErrKey], [ErrNoKey], of the file
// system.
func Read(key string) (string, error) {
	if !validKey(key) {
		return "", fmt.Errorf("read a sysctl: %w: %q", ErrKey, key)
	}
	data, err := os.ReadFile(filepath.Join(procSys, key))
	if errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("read sysctl %s: %w", key, ErrNoKey)
	}
	if err != nil {
		return "", fmt.Errorf("read a sysctl: %w", err)
	}
	return strings.TrimSpace(string(data)), nil
}

func write(key, value string) error {
	file, err := os.OpenFile(filepath.Join(procSys, key), os.O_WRONLY, 0)
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("write sysctl %s: %w", key, ErrNoKey)
	}
	if err != nil {
		return fmt.Errorf("write a sysctl: %w", err)
	}
	_, err = file.WriteString(value + "\n")
	if err := errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("write a sysctl: %w", err)
	}
	return nil
}
