package bench

import (
	"bufio"
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/aethertunnel/aethertunnel/cmd/internal/demo/stage"
	"github.com/aethertunnel/aethertunnel/cmd/internal/lab"
)

// The tunnel of wireguard-go.
const (
	wireguardPort   = 51820
	wireguardMTU    = 1420 // its own default
	wireguardClient = "10.99.0.2"
	wireguardServer = "10.99.0.1"
	wireguardFar    = "10.99.0.3"
	wireguardSubnet = "10.99.0.0/24"
	// uapiPattern is where wireguard-go listens for its configuration, by the name of the device.
	uapiPattern = "/var/run/wireguard/%s.sock"

	probeLimit = 5 * time.Second
	uapiPause  = 10 * time.Millisecond
)

// CheckRival says what version the program at a path is of, or in one line why it is not wireguard-go.
func CheckRival(ctx context.Context, path string) (version string, err error) {
	ctx, cancel := context.WithTimeout(ctx, probeLimit)
	defer cancel()
	if info, err := os.Stat(path); err != nil || info.IsDir() {
		return "", fmt.Errorf("--vs %s: there is no program at %s", rivalName, path)
	}
	c := exec.CommandContext(ctx, path, "--version")
	c.WaitDelay = probeLimit
	out, err := c.Output()
	first, _, _ := strings.Cut(string(out), "\n")
	name, version, _ := strings.Cut(strings.TrimSpace(first), " ")
	if err != nil || name != rivalName {
		return "", fmt.Errorf("--vs %s: %s is not %s: `%s --version` does not say so", rivalName, path, rivalName, path)
	}
	return version, nil
}

// wireguard is wireguard-go.
type wireguard struct {
	path  string
	build string // its version
}

func (wireguard) name() string      { return rivalName }
func (w wireguard) version() string { return w.build }

// wireguardEnd is one machine with a tunnel.
type wireguardEnd struct {
	namespace *lab.Namespace
	address   string
	key       *ecdh.PrivateKey
	peers     []wireguardPeer
}

// wireguardPeer is another one that it exchanges packets with.
type wireguardPeer struct {
	*wireguardEnd
	allowed []string       // prefixes that are behind it
	at      netip.AddrPort // where to reach it, if this end is to begin
}

func (w wireguard) install(ctx context.Context, s *site, cancel context.CancelCauseFunc) (netip.Addr, error) {
	ends, target := wireguardNetwork(s)
	if s.far != nil {
		if err := s.server.Forward(); err != nil {
			return netip.Addr{}, err
		}
	}
	for _, e := range ends {
		var err error
		if e.key, err = ecdh.X25519().GenerateKey(rand.Reader); err != nil {
			return netip.Addr{}, err
		}
	}
	for _, e := range ends {
		device := e.namespace.Interface("wg-" + e.namespace.Name()) // the names of sites differ, and with them the sockets
		if err := s.startWireguard(ctx, w.path, device, e.config(), e.address, cancel); err != nil {
			return netip.Addr{}, err
		}
	}
	if s.place == lan {
		return target, s.client.Interface("wg-" + s.client.Name()).AddRoute(farPrefix)
	}
	return target, nil
}

// wireguardNetwork says who has which peers. All are in one subnet, so that the kernel of the server in the middle forwards
// between members, as it does to a LAN.
func wireguardNetwork(s *site) (ends []*wireguardEnd, target netip.Addr) {
	server := &wireguardEnd{namespace: s.server, address: wireguardServer}
	client := &wireguardEnd{namespace: s.client, address: wireguardClient}
	listening := netip.AddrPortFrom(netip.MustParseAddr(serverAddress), wireguardPort)
	reach := []string{wireguardServer + "/32"}
	ends, target = []*wireguardEnd{server, client}, netip.MustParseAddr(wireguardServer)
	switch s.place {
	case cable, wan:
	case lan:
		reach, target = append(reach, farPrefix), netip.MustParseAddr(farAddress)
	case hub:
		far := &wireguardEnd{namespace: s.far, address: wireguardFar}
		far.peers = []wireguardPeer{{server, []string{wireguardSubnet}, listening}}
		// Far never begins by itself.
		at := netip.AddrPortFrom(netip.MustParseAddr(farAddress), wireguardPort)
		server.peers = []wireguardPeer{{far, []string{wireguardFar + "/32"}, at}}
		ends, reach, target = append(ends, far), []string{wireguardSubnet}, netip.MustParseAddr(wireguardFar)
	}
	client.peers = []wireguardPeer{{server, reach, listening}}
	server.peers = append(server.peers, wireguardPeer{wireguardEnd: client, allowed: []string{wireguardClient + "/32"}})
	return ends, target
}

// config is for the program at this end. All keys must have been made.
func (e *wireguardEnd) config() deviceConfig {
	c := deviceConfig{privateKey: e.key.Bytes(), listenPort: wireguardPort}
	for _, p := range e.peers {
		peer := peerConfig{publicKey: p.key.PublicKey().Bytes(), endpoint: p.at}
		for _, prefix := range p.allowed {
			peer.allowed = append(peer.allowed, netip.MustParsePrefix(prefix))
		}
		c.peers = append(c.peers, peer)
	}
	return c
}

// startWireguard starts one end and configures it.
func (s *site) startWireguard(
	ctx context.Context, path string, device lab.Interface, config deviceConfig, address string,
	cancel context.CancelCauseFunc,
) error {
	p := &rivalProcess{ended: make(chan struct{})}
	p.cmd = device.Namespace.Command(context.Background(), path, "-f", device.Name)
	p.cmd.Env = append(os.Environ(), "LOG_LEVEL=error")
	p.cmd.Stdout, p.cmd.Stderr = &p.tail, &p.tail
	p.cmd.SysProcAttr.Setpgid = true // a Ctrl-C is for us alone
	if err := p.cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", path, err)
	}
	go p.wait(cancel)
	s.closers = append(s.closers, p)
	s.processes = append(s.processes, p.cmd.Process.Pid)
	limited, stop := context.WithTimeoutCause(ctx, startLimit, fmt.Errorf("not within %v", startLimit))
	defer stop()
	if err := configure(limited, device.Name, config); err != nil {
		return p.explain(fmt.Errorf("configure %s: %w", path, err))
	}
	return errors.Join(device.AddAddress(address+"/24"), device.SetMTU(wireguardMTU), device.SetUp())
}

// rivalProcess is one end of wireguard-go.
type rivalProcess struct {
	cmd   *lab.Cmd
	tail  stage.Tail
	ended chan struct{}
}

func (p *rivalProcess) wait(cancel context.CancelCauseFunc) {
	err := p.cmd.Wait()
	close(p.ended)
	cancel(p.explain(fmt.Errorf("%s has ended by itself: %v", rivalName, err))) //nolint:errorlint // often nil
}

// explain adds what the process had to say.
func (p *rivalProcess) explain(err error) error {
	const lines = 3
	if said := p.tail.Lines(lines); len(said) > 0 {
		return fmt.Errorf("%w; it says: %s", err, strings.Join(said, "; "))
	}
	return err
}

// Close ends the process. It has no state to keep.
func (p *rivalProcess) Close() error {
	err := p.cmd.Process.Kill()
	<-p.ended
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	return err
}

// configure waits for the configuration socket of a device and hands the configuration over.
func configure(ctx context.Context, device string, config deviceConfig) error {
	conn, err := dialUAPI(ctx, fmt.Sprintf(uapiPattern, device))
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // the answer has been read
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return err
	}
	if _, err := io.WriteString(conn, config.uapi()); err != nil {
		return err
	}
	const maxAnswerBytes = 4096
	answer, err := bufio.NewReader(io.LimitReader(conn, maxAnswerBytes)).ReadString('\n')
	if err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	if answer = strings.TrimSpace(answer); answer != "errno=0" {
		return fmt.Errorf("refused: %s", answer)
	}
	return nil
}

// dialUAPI tries until the program listens, which it does not tell.
func dialUAPI(ctx context.Context, path string) (net.Conn, error) {
	tick := time.NewTicker(uapiPause)
	defer tick.Stop()
	for {
		conn, err := new(net.Dialer).DialContext(ctx, "unix", path)
		if err == nil {
			return conn, nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: %w", context.Cause(ctx), err)
		}
	}
}
