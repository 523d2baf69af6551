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

// wireguardSite runs wireguard-go at both ends.
func wireguardSite(
	ctx context.Context, path, version string, cancel context.CancelCauseFunc,
) (*site, error) {
	s, err := newSite(rivalName)
	if err != nil {
		return s, err
	}
	s.version = version
	clientKey, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return s, err
	}
	serverKey, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return s, err
	}
	client := peerConfig{
		privateKey: clientKey.Bytes(), peerPublicKey: serverKey.PublicKey().Bytes(), listenPort: wireguardPort,
		endpoint: netip.AddrPortFrom(netip.MustParseAddr(serverAddress), wireguardPort),
		allowed:  []netip.Prefix{netip.MustParsePrefix(wireguardServer + "/32")},
	}
	server := peerConfig{
		privateKey: serverKey.Bytes(), peerPublicKey: clientKey.PublicKey().Bytes(), listenPort: wireguardPort,
		allowed: []netip.Prefix{netip.MustParsePrefix(wireguardClient + "/32")},
	}
	if err := s.startWireguard(ctx, path, s.client.Interface("wg-client"), client, wireguardClient, cancel); err != nil {
		return s, err
	}
	if err := s.startWireguard(ctx, path, s.server.Interface("wg-server"), server, wireguardServer, cancel); err != nil {
		return s, err
	}
	return s, s.serve(ctx, netip.MustParseAddr(wireguardServer))
}

// startWireguard starts one end and configures it.
func (s *site) startWireguard(
	ctx context.Context, path string, device lab.Interface, config peerConfig, address string,
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
func configure(ctx context.Context, device string, config peerConfig) error {
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
