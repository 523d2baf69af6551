package sysctl

import (
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/aethertunnel/aethertunnel/platform/journal"
)

// DefaultDir is the directory that the daemons of one machine share. It is on a file system that a reboot
// empties.
const DefaultDir = "/run/aetherd"

// Kind is the kind of this package's journal records.
const Kind = "sysctl.hold"

// SrcValidMark makes the kernel use a packet's mark when it validates the packet's source (strict rp_filter).
const SrcValidMark = "net/ipv4/conf/all/src_valid_mark"

const (
	maxKeyBytes   = 256
	maxValueBytes = 256
	maxHolders    = 256
	maxSpreads    = 4096
)

// Sentinels of this package.
var (
	// ErrKey: the key is not a clean path below net/.
	ErrKey = errors.New("not a network sysctl key")
	// ErrNoKey: the kernel has no such parameter (an older kernel, or the interface is gone).
	ErrNoKey = errors.New("no such sysctl")
	// ErrBusy: the lock of the holder files was not free in time.
	ErrBusy = errors.New("the sysctl holder files are locked by another process")
	// ErrDir: the directory of the holder files is not ours alone, so its content cannot be trusted.
	ErrDir = errors.New("unsafe directory for sysctl holder files")
	// ErrTooMany: a bound of this package is reached.
	ErrTooMany = errors.New("too many sysctl holders")
)

// ConflictError says that another daemon holds the key at another value.
type ConflictError struct {
	Key, Held, Wanted string
	// StateDir is the state directory of the first other holder.
	StateDir string
}

// Error implements error.
func (e *ConflictError) Error() string {
	return fmt.Sprintf("sysctl %s: wanted %q, but the daemon of %s holds it at %q",
		e.Key, e.Wanted, e.StateDir, e.Held)
}

// Setting is a parameter and the value it is to have.
type Setting struct {
	// Key is the path below /proc/sys.
	Key string
	// Value is compared and written without surrounding space.
	Value string
	// Spreads are keys that the kernel overwrites as well when Key is written (net/ipv6/conf/all/forwarding
	// sets every interface). Their values are restored with it.
	Spreads []string
}

// Validate checks the keys and the value. Errors match [ErrKey].
func (s Setting) Validate() error {
	for _, key := range append([]string{s.Key}, s.Spreads...) {
		if !validKey(key) {
			return fmt.Errorf("%w: %q", ErrKey, key)
		}
	}
	if len(s.Spreads) > maxSpreads {
		return fmt.Errorf("%w: %s sets %d others", ErrTooMany, s.Key, len(s.Spreads))
	}
	if s.Value == "" || len(s.Value) > maxValueBytes || strings.TrimSpace(s.Value) != s.Value {
		return fmt.Errorf("%w: value %q of %s", ErrKey, s.Value, s.Key)
	}
	return nil
}

func validKey(key string) bool {
	return strings.HasPrefix(key, "net/") && len(key) <= maxKeyBytes && path.Clean(key) == key &&
		!strings.ContainsAny(key, "\x00\n")
}

// InterfaceKey returns the key of an interface's parameter, for example ("ipv4", "eth0", "forwarding").
func InterfaceKey(family, device, name string) string {
	return strings.Join([]string{"net", family, "conf", device, name}, "/")
}

// Config is what a [Holds] works with.
type Config struct {
	// Dir is shared by the daemons of this machine, usually [DefaultDir]. It is made if it is not there.
	Dir string
	// StateDir is the caller's state directory; it names the holder.
	StateDir string
	// Scope is the boot and network namespace, from the journal.
	Scope journal.Scope
	// Journal gets a record before a parameter is changed.
	Journal journal.Recorder
}

// Body is the JSON body of this package's journal records. The holder file is what counts; the values here
// are for the case that it was lost.
type Body struct {
	Dir      string `json:"dir"`
	StateDir string `json:"state_dir"`
	Key      string `json:"key"`
	Set      string `json:"set"`
	Before   string `json:"before"`
}
