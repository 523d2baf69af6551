package firewall

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/aethertunnel/aethertunnel/platform/journal"
	"github.com/aethertunnel/aethertunnel/platform/sysctl"
)

const (
	// TablePrefix begins the name of every table of ours, of other daemons on this host too.
	TablePrefix = "aether-"

	maxPlanPrefixes = 512 // the elements of a set go to the kernel in one attribute of at most 64 KiB
	maxPorts        = 64
	maxDeviceBytes  = 15
	maxTableBytes   = 64
)

// ErrPlan says that the plan is contradictory or out of bounds. Nothing was changed.
var ErrPlan = errors.New("invalid firewall plan")

// MissingError says that the kernel lacks something the table needs.
type MissingError struct {
	// Feature is what is missing, for example "nf_tables".
	Feature string
	// Remedy is what the operator can do.
	Remedy string
	// Err is what the kernel answered.
	Err error
}

// Error implements error.
func (e *MissingError) Error() string {
	return fmt.Sprintf("the kernel has no %s (%v): %s", e.Feature, e.Err, e.Remedy)
}

// Unwrap returns the kernel's answer.
func (e *MissingError) Unwrap() error { return e.Err }

// Plan is the desired content of our table.
type Plan struct {
	// Table is its name; it begins with [TablePrefix]. [TableName] derives one.
	Table string
	// Device is our interface; it need not exist yet.
	Device string
	// Mark is the firewall mark of our own sockets.
	Mark uint32
	// Ports are the UDP ports that our sockets are bound to.
	Ports []uint16
	// TunnelPrefixes are the prefixes of our network.
	TunnelPrefixes []netip.Prefix
	// OwnAddresses are our own addresses in them.
	OwnAddresses []netip.Addr
	// Granted are the prefixes behind this node that tunnel sources may reach; they are masqueraded toward
	// them.
	Granted []netip.Prefix
}

// TableName derives the name of a daemon's table from its state directory.
func TableName(stateDir string) string {
	sum := sha256.Sum256([]byte("aethertunnel nft table\x00" + stateDir))
	return TablePrefix + hex.EncodeToString(sum[:6])
}

// Validate returns an error matching [ErrPlan] when the plan cannot be applied.
func (p Plan) Validate() error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s", ErrPlan, fmt.Sprintf(format, args...))
	}
	if err := validTable(p.Table); err != nil {
		return err
	}
	if p.Device == "" || len(p.Device) > maxDeviceBytes {
		return bad("device name %q", p.Device)
	}
	if p.Mark == 0 {
		return bad("mark 0")
	}
	if n := len(p.TunnelPrefixes) + len(p.OwnAddresses) + len(p.Granted); n > maxPlanPrefixes {
		return bad("%d prefixes, at most %d", n, maxPlanPrefixes)
	}
	if len(p.Ports) > maxPorts || slices.Contains(p.Ports, 0) {
		return bad("ports %v", p.Ports)
	}
	for _, prefix := range slices.Concat(p.TunnelPrefixes, p.Granted) {
		if !prefix.IsValid() || prefix.Addr().Is4In6() || prefix != prefix.Masked() {
			return bad("prefix %v", prefix)
		}
	}
	for _, a := range p.OwnAddresses {
		if !a.IsValid() || a.Is4In6() || a.Zone() != "" {
			return bad("address %v", a)
		}
	}
	return nil
}

func validTable(name string) error {
	rest, ok := strings.CutPrefix(name, TablePrefix)
	if !ok || rest == "" || len(name) > maxTableBytes || strings.Trim(rest, "0123456789abcdef") != "" {
		return fmt.Errorf("%w: table name %q is not %s<hex>", ErrPlan, name, TablePrefix)
	}
	return nil
}

// Canonical returns the plan with lists sorted and doubles removed.
func (p Plan) Canonical() Plan {
	p.Ports = sortedUnique(p.Ports, cmp.Compare[uint16])
	p.TunnelPrefixes = sortedUnique(p.TunnelPrefixes, comparePrefix)
	p.OwnAddresses = sortedUnique(p.OwnAddresses, netip.Addr.Compare)
	p.Granted = sortedUnique(p.Granted, comparePrefix)
	return p
}

func sortedUnique[T comparable](in []T, compare func(a, b T) int) []T {
	out := slices.Clone(in)
	slices.SortFunc(out, compare)
	return slices.Compact(out)
}

func comparePrefix(a, b netip.Prefix) int {
	return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
}

// Equal reports whether two plans ask for the same table.
func (p Plan) Equal(o Plan) bool {
	return p.Table == o.Table && p.fingerprint() == o.fingerprint()
}

// fingerprint names the content of the table; every rule carries it.
func (p Plan) fingerprint() string {
	n := p.Canonical()
	sum := sha256.Sum256(fmt.Appendf(nil, "rules 1 %q %d %v %v %v %v",
		n.Device, n.Mark, n.Ports, n.TunnelPrefixes, n.OwnAddresses, n.Granted))
	return hex.EncodeToString(sum[:8])
}

// Holder holds kernel parameters. [*sysctl.Holds] implements it.
type Holder interface {
	Hold(sysctl.Setting) error
	Release(key string) ([]journal.Left, error)
}

// Config is what a [Manager] works with.
type Config struct {
	Journal journal.Recorder
	Sysctls Holder
}
