package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"

	"github.com/aethertunnel/aethertunnel/cmd/internal/lab"
	"github.com/aethertunnel/aethertunnel/cmd/internal/lab/traffic"
)

// The addresses of the demonstration: documentation prefixes (RFC 5737, RFC 3849) where the Internet would be, private
// ones for the LAN.
const (
	linkMTU = 1500

	laptopAddress  = "192.0.2.2"
	gatewayAddress = "192.0.2.1"
	gatewayPort    = "443"

	lanGateway4, lanHost4 = "10.20.30.1", "10.20.30.2"
	lanGateway6, lanHost6 = "fd20:30::1", "fd20:30::2"
	lanPrefixes           = "10.20.30.0/24,fd20:30::/64"
)

// network is the machines of the demonstration and what runs on the host of the LAN.
type network struct {
	laptop, gateway, lan *lab.Namespace
	closers              []io.Closer // in the order in which they were opened

	traffic *traffic.Server // on the host of the LAN
}

// build makes the namespaces, the cables and the servers. What was made before an error is closed again.
func build(ctx context.Context) (n *network, err error) {
	n = &network{}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("build the network: %w", err), n.Close())
		}
	}()
	for _, place := range []struct {
		namespace **lab.Namespace
		name      string
	}{{&n.laptop, "laptop"}, {&n.gateway, "gateway"}, {&n.lan, "lan"}} {
		namespace, err := lab.NewNamespace(place.name)
		if err != nil {
			return n, err
		}
		*place.namespace = namespace
		n.closers = append(n.closers, namespace)
	}
	if err := n.connect(); err != nil {
		return n, err
	}
	return n, n.serve(ctx)
}

// connect lays the cables. The host of the LAN has no route to anywhere else, as the device on a shelf that nobody
// configures.
func (n *network) connect() error {
	wifi, wan := n.laptop.Interface("wifi0"), n.gateway.Interface("wan0")
	inner, shelf := n.gateway.Interface("lan0"), n.lan.Interface("eth0")
	if err := errors.Join(lab.Veth(wifi, wan, linkMTU), lab.Veth(inner, shelf, linkMTU)); err != nil {
		return err
	}
	return errors.Join(
		wifi.AddAddress(laptopAddress+"/24"),
		wan.AddAddress(gatewayAddress+"/24"),
		inner.AddAddress(lanGateway4+"/24", lanGateway6+"/64"),
		shelf.AddAddress(lanHost4+"/24", lanHost6+"/64"),
	)
}

// pageText is what the device of the LAN has to say.
const pageText = "<!doctype html><title>shelf</title><h1>It works</h1><p>You reached a host on the LAN.\n"

// serve starts the web site and the traffic server on the host of the LAN.
func (n *network) serve(ctx context.Context) error {
	page := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = io.WriteString(w, pageText) // the client notices when it is cut short
	})
	for _, address := range []string{lanHost4, lanHost6} {
		server, err := traffic.ServeWeb(n.lan, net.JoinHostPort(address, "80"), page)
		if err != nil {
			return err
		}
		n.closers = append(n.closers, server)
	}
	server, err := traffic.Serve(ctx, n.lan, lanHost4+":0")
	if err != nil {
		return err
	}
	n.traffic = server
	n.closers = append(n.closers, server)
	return nil
}

// Close takes everything away, the last thing first.
func (n *network) Close() error {
	var errs []error
	for i := len(n.closers) - 1; i >= 0; i-- {
		errs = append(errs, n.closers[i].Close())
	}
	n.closers = nil
	return errors.Join(errs...)
}
