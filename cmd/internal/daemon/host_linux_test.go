package daemon

import (
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/nftables"

	"github.com/aethertunnel/aethertunnel/control"
	"github.com/aethertunnel/aethertunnel/control/config"
	"github.com/aethertunnel/aethertunnel/platform/firewall"
	"github.com/aethertunnel/aethertunnel/platform/journal/hosttest"
)

func prefix(text string) netip.Prefix { return netip.MustParsePrefix(text) }

// hostOf opens the host side of a state directory, as Run does.
func hostOf(t *testing.T, dir string) *host {
	t.Helper()
	s := open(t, dir)
	h, err := openHost(dir, s.store, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// What a daemon could not take back when it ended is told by the next down, once, though the daemon is gone.
func TestDownTellsWhatTheDaemonHasLeft(t *testing.T) {
	hosttest.Enter(t)
	dir := t.TempDir()
	st, err := openState(dir)
	if err != nil {
		t.Fatal(err)
	}
	h, err := openHost(dir, st.store, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if err := h.firewall.Set(firewall.Plan{
		Table: h.table, Device: "aether0", Mark: 1, TunnelPrefixes: []netip.Prefix{prefix("10.77.0.0/24")},
	}); err != nil {
		t.Fatal(err)
	}
	conn, err := nftables.New()
	if err != nil {
		t.Fatal(err)
	}
	table := &nftables.Table{Name: h.table, Family: nftables.TableFamilyINet}
	conn.AddChain(&nftables.Chain{Name: "somebody", Table: table})
	if err := conn.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := h.close(); err != nil {
		t.Fatal(err)
	}
	if err := st.close(); err != nil {
		t.Fatal(err)
	}
	cleaned, err := Clean(dir, slog.New(slog.DiscardHandler))
	if err != nil || cleaned.Undone != 0 || len(cleaned.Kept) != 1 || !strings.Contains(cleaned.Kept[0], "nft table inet "+h.table) {
		t.Errorf("the first down: %+v, %v", cleaned, err)
	}
	if cleaned, err := Clean(dir, slog.New(slog.DiscardHandler)); err != nil || len(cleaned.Kept) != 0 {
		t.Errorf("the second down: %+v, %v", cleaned, err)
	}
}

// A start makes what an earlier one has left old news.
func TestStartForgetsWhatWasLeft(t *testing.T) {
	hosttest.Enter(t)
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/"+leftFile, []byte("something\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	h := hostOf(t, dir)
	if lines, err := takeLeft(dir); err != nil || lines != nil {
		t.Errorf("still there: %q, %v", lines, err)
	}
	if err := h.close(); err != nil {
		t.Fatal(err)
	}
}

// A LAN that the host is connected to itself is no route of the tunnel, in status as in the kernel.
func TestNearLANIsNotInTheTunnel(t *testing.T) {
	hosttest.Enter(t)
	hosttest.Link(t, "lan0", "lan1")
	hosttest.Up(t, "lan0", "lan1")
	hosttest.Address(t, "lan0", "10.7.5.1/24")
	h := hostOf(t, t.TempDir())
	h.device = "aether0"
	all := []netip.Prefix{prefix("10.7.0.0/16"), prefix("10.8.0.0/16")}
	report, err := h.usableRoutes(control.HostPlan{Routes: all})
	if err != nil || !slices.Equal(report.Routes, all[1:]) {
		t.Fatalf("routes %v, %v", report.Routes, err)
	}
	if len(report.Notices) != 1 || !strings.Contains(report.Notices[0], "10.7.5.0/24 on lan0") {
		t.Errorf("notices %q", report.Notices)
	}
	if err := h.close(); err != nil {
		t.Fatal(err)
	}
}

// A device name that is taken must not leave a network behind: only the start that makes it shows the first invite.
func TestTakenDeviceMakesNoNetwork(t *testing.T) {
	hosttest.Enter(t)
	hosttest.Link(t, "taken", "peer")
	before := hosttest.Listing(t)
	cfg := config.Default()
	cfg.Node.State, cfg.Node.Tun, cfg.Gateway.PortMapping = t.TempDir(), "taken", config.PortMappingOff
	err := Run(t.Context(), Options{Config: cfg, Log: slog.New(slog.DiscardHandler)})
	if err == nil || !strings.Contains(err.Error(), "--tun NAME") {
		t.Fatalf("got %v", err)
	}
	hosttest.Same(t, before, hosttest.Listing(t), "after a start that failed")
	if open(t, cfg.Node.State).network != nil {
		t.Error("a network was made")
	}
}
