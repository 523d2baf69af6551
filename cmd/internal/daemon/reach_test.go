package daemon

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go/qlog"

	"github.com/aethertunnel/aethertunnel/control/config"
	"github.com/aethertunnel/aethertunnel/control/portmap"
)

func TestReachNotice(t *testing.T) {
	listen := []config.ListenAddr{{Port: 4433}}
	for name, c := range map[string]struct {
		cfg       config.Gateway
		addresses []string
		silent    bool
	}{
		"only private": {config.Gateway{Listen: listen}, []string{"192.168.1.2:4433", "[fd00::1]:4433"}, false},
		"a public one": {config.Gateway{Listen: listen}, []string{"192.168.1.2:4433", "[2001:db8::1]:4433"}, true},
		"none at all":  {config.Gateway{Listen: listen}, nil, false},
		"advertised": {
			config.Gateway{Listen: listen, Advertise: []config.HostPort{{Host: "vpn.example", Port: 443}}},
			[]string{"vpn.example:443"},
			true,
		},
	} {
		r := newReachability(c.cfg, "aether0")
		r.reason = errors.New("router says no")
		got := r.notice(c.addresses)
		if (got == "") != c.silent {
			t.Errorf("%s: %q", name, got)
		}
		if len(c.addresses) == 0 {
			if !strings.Contains(got, "no other machine can reach") || !strings.Contains(got, "--advertise") {
				t.Errorf("%s does not teach: %q", name, got)
			}
			continue
		}
		if !c.silent && (!strings.Contains(got, "forward UDP port 4433") || !strings.Contains(got, "router says no")) {
			t.Errorf("%s does not teach: %q", name, got)
		}
	}
}

// The first invite waits for the router, and not longer than routerLimit.
func TestReachSettles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReachability(config.Gateway{}, "")
		begin := time.Now()
		r.settle(t.Context())
		if took := time.Since(begin); took != routerLimit {
			t.Errorf("a router that says nothing: %v", took)
		}
		go func() {
			time.Sleep(time.Second)
			r.set(portmap.Event{Mapping: portmap.Mapping{External: netip.MustParseAddrPort("203.0.113.7:443")}})
			r.settled()
		}()
		begin = time.Now()
		r.settle(context.Background())
		if took := time.Since(begin); took != time.Second || !r.mapped.IsValid() {
			t.Errorf("a router that grants: %v, %v", took, r.mapped)
		}
	})
}

func TestUDPDropsAreCounted(t *testing.T) {
	d := newUDPDrops()
	d.RecordEvent(qlog.PacketDropped{Trigger: qlog.PacketDropHeaderParseError})
	d.RecordEvent(qlog.PacketDropped{Trigger: qlog.PacketDropHeaderParseError})
	d.RecordEvent(qlog.VersionNegotiationSent{})
	got := map[string]uint64{"no_route": 1}
	d.addTo(got)
	if len(got) != 2 || got["udp_"+string(qlog.PacketDropHeaderParseError)] != 2 {
		t.Errorf("got %v", got)
	}
}
