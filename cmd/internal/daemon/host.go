package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"syscall"

	"github.com/aethertunnel/aethertunnel/control"
	"github.com/aethertunnel/aethertunnel/control/store"
	"github.com/aethertunnel/aethertunnel/platform/firewall"
	"github.com/aethertunnel/aethertunnel/platform/journal"
	"github.com/aethertunnel/aethertunnel/platform/route"
	"github.com/aethertunnel/aethertunnel/platform/sysctl"
)

// host makes the operating system agree with control's plans, and undoes all of it at the end.
type host struct {
	dir       string // the state directory
	journal   *journal.Journal
	selectors route.Selectors
	routes    *route.Manager
	firewall  *firewall.Manager
	device    string
	mtu       int
	table     string
	ports     []uint16
	log       *slog.Logger
}

// undoers knows how to take back every kind of change.
func undoers() journal.Registry {
	return journal.Merge(route.Undoers(), firewall.Undoers(), sysctl.Undoers())
}

// openHost opens the journal of a state directory and undoes what an earlier daemon has left behind. It needs the
// lock on the state.
func openHost(dir string, s *store.Store, log *slog.Logger) (*host, error) {
	j, err := journal.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("open undo journal: %w", err)
	}
	h := &host{dir: dir, journal: j, table: firewall.TableName(dir), log: log}
	if err := h.setUp(dir, s); err != nil {
		return nil, errors.Join(err, j.Close())
	}
	return h, nil
}

func (h *host) setUp(dir string, s *store.Store) error {
	if _, err := h.undo(); err != nil {
		return fmt.Errorf("undo what an earlier start has left: %w", err)
	}
	if _, err := takeLeft(dir); err != nil { // nobody has asked for it with down
		return fmt.Errorf("forget what an earlier start has left: %w", err)
	}
	var err error
	if h.selectors, err = chooseSelectors(dir, s); err != nil {
		return err
	}
	holds, err := sysctl.New(sysctl.Config{
		Dir: sysctl.DefaultDir, StateDir: dir, Scope: h.journal.Scope(), Journal: h.journal,
	})
	if err != nil {
		return fmt.Errorf("kernel parameters: %w", err)
	}
	h.routes = route.New(route.Config{Journal: h.journal, Sysctls: holds})
	h.firewall = firewall.New(firewall.Config{Journal: h.journal, Sysctls: holds})
	return nil
}

// chooseSelectors takes the numbers remembered for this state directory, if they are still free, or new ones.
func chooseSelectors(dir string, s *store.Store) (route.Selectors, error) {
	var remembered store.HostSelectors
	err := s.View(func(tx *store.Tx) error {
		var err error
		remembered, err = tx.HostSelectors()
		return err
	})
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return route.Selectors{}, fmt.Errorf("read host selectors: %w", err)
	}
	chosen, err := route.Choose(dir, route.Selectors(remembered))
	if err != nil {
		return route.Selectors{}, fmt.Errorf("choose a routing table: %w", err)
	}
	if store.HostSelectors(chosen) == remembered {
		return chosen, nil
	}
	return chosen, s.Update(func(tx *store.Tx) error { return tx.SetHostSelectors(store.HostSelectors(chosen)) })
}

// undo takes back every change on record. What somebody else has changed since is left and returned.
func (h *host) undo() (journal.Report, error) {
	report := h.journal.Undo(undoers())
	for _, l := range report.Left {
		h.log.Warn("left as it is", "thing", l.Thing, "set", l.Set, "found", l.Found)
	}
	return report, report.Err()
}

// close undoes everything, keeps for `aetherd down` what had to be left, and closes the journal.
func (h *host) close() error {
	report, err := h.undo()
	if keepErr := keepLeft(h.dir, report.Left); keepErr != nil {
		h.log.Warn("the list of what was left is in this log only", "error", keepErr)
	}
	return errors.Join(err, h.journal.Close())
}

// Apply implements [control.Host].
func (h *host) Apply(_ context.Context, p control.HostPlan) (control.HostReport, error) {
	report, err := h.usableRoutes(p)
	if err != nil {
		return control.HostReport{}, err
	}
	if err := h.firewall.Set(firewall.Plan{
		Table: h.table, Device: h.device, Mark: h.selectors.Mark, Ports: h.ports,
		TunnelPrefixes: p.Tunnel, OwnAddresses: addressesOf(p.Addresses), Granted: p.Granted,
	}); err != nil {
		return control.HostReport{}, err
	}
	plan := route.Plan{
		Device: h.device, MTU: h.mtu, Addresses: p.Addresses, Guards: p.Tunnel, Selectors: h.selectors,
	}
	for _, prefix := range report.Routes {
		plan.Routes = append(plan.Routes, route.Route{Prefix: prefix})
	}
	routeNotices, err := h.routes.Set(plan)
	if errors.Is(err, syscall.EROFS) {
		return control.HostReport{}, fmt.Errorf("%w: /proc/sys is read-only here; start the container with "+
			"--sysctl net.ipv4.conf.all.src_valid_mark=1, or with /proc/sys writable", err)
	}
	if err != nil {
		return control.HostReport{}, err
	}
	for _, n := range routeNotices {
		report.Notices = append(report.Notices, n.Detail)
	}
	forwardNotices, err := h.forward(p.Granted)
	report.Notices = append(report.Notices, forwardNotices...)
	return report, err
}

// forward opens the granted LANs, and says what else stands in the way.
func (h *host) forward(granted []netip.Prefix) ([]string, error) {
	var notices []string
	found, err := h.firewall.SetForwarding(firewall.Forwarding{
		Device: h.device, Mark: h.selectors.Mark, Granted: granted,
	})
	if err != nil {
		return nil, err
	}
	for _, n := range found {
		notices = append(notices, n.Detail)
	}
	if len(granted) == 0 {
		return notices, nil
	}
	drops, err := firewall.ForeignDrops(h.device)
	if err != nil {
		return nil, fmt.Errorf("look for foreign firewall rules: %w", err)
	}
	for _, d := range drops {
		notices = append(notices, d.String())
	}
	return notices, nil
}

// usableRoutes refuses a network whose own prefixes are already in use here, and leaves out LANs that this host is
// connected to itself: the near way is the better one.
func (h *host) usableRoutes(p control.HostPlan) (control.HostReport, error) {
	conflicts, err := route.Connected(slices.Concat(p.Tunnel, p.Routes), h.device)
	if err != nil {
		return control.HostReport{}, fmt.Errorf("look for connected networks: %w", err)
	}
	taken := make(map[netip.Prefix]route.Conflict)
	for _, c := range conflicts {
		if slices.Contains(p.Tunnel, c.Prefix) {
			return control.HostReport{}, conflictError(c)
		}
		taken[c.Prefix] = c
	}
	var report control.HostReport
	for _, prefix := range p.Routes {
		if c, found := taken[prefix]; found {
			report.Notices = append(report.Notices, fmt.Sprintf(
				"%s is not taken from the tunnel: this machine is connected to %s on %s", prefix, c.Network, c.Device))
			continue
		}
		report.Routes = append(report.Routes, prefix)
	}
	return report, nil
}

// errPrefixConnected means that the network's own prefix is in use on another interface.
var errPrefixConnected = errors.New("already connected on another interface")

func conflictError(c route.Conflict) error {
	return fmt.Errorf("the network's prefix %s overlaps %s, %w (%s): change that interface's addresses, "+
		"or make the network with another --network PREFIX", c.Prefix, c.Network, errPrefixConnected, c.Device)
}

func addressesOf(prefixes []netip.Prefix) []netip.Addr {
	out := make([]netip.Addr, len(prefixes))
	for i, p := range prefixes {
		out[i] = p.Addr()
	}
	return out
}
