package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"syscall"
)

// ErrNotRunning means that no daemon listens on the socket.
var ErrNotRunning = errors.New("aetherd is not running")

// maxAnswerBytes bounds what a client reads: a status with thousands of peers.
const maxAnswerBytes = 64 << 20

// Client asks the daemon of one state directory.
type Client struct {
	state string
	http  *http.Client
}

// NewClient makes a client for the daemon whose state directory is state. It does not connect yet.
func NewClient(state string) *Client {
	path := SocketPath(state)
	return &Client{state: state, http: &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		},
	}}}
}

// Status asks for the daemon's state.
func (c *Client) Status(ctx context.Context) (Status, error) {
	return call[Status](ctx, c, http.MethodGet, "/v1/status", nil)
}

// Down ends the daemon. It returns as soon as the daemon has agreed.
func (c *Client) Down(ctx context.Context) error {
	_, err := call[struct{}](ctx, c, http.MethodPost, "/v1/down", nil)
	return err
}

// Stop asks the daemon to end and returns when its process has ended, or fails with what ended ctx. Where the process
// cannot be seen (another PID namespace, another system than Linux) it returns as soon as the daemon has agreed.
func (c *Client) Stop(ctx context.Context) error {
	process, err := c.watchExit(ctx)
	if err != nil {
		return err
	}
	if process != nil {
		defer process.Close() //nolint:errcheck // nothing was written
	}
	if err := c.Down(ctx); err != nil || process == nil {
		return err
	}
	if err := awaitExit(ctx, process); err != nil {
		return fmt.Errorf("wait for aetherd of state %s to end: %w", c.state, err)
	}
	return nil
}

// Invite asks a gateway for an invite.
func (c *Client) Invite(ctx context.Context, r InviteRequest) (Invite, error) {
	return call[Invite](ctx, c, http.MethodPost, "/v1/invites", r)
}

// Nodes lists the nodes of a gateway's network.
func (c *Client) Nodes(ctx context.Context) ([]Node, error) {
	return call[[]Node](ctx, c, http.MethodGet, "/v1/nodes", nil)
}

// Revoke cuts a node off.
func (c *Client) Revoke(ctx context.Context, name string) error {
	_, err := call[struct{}](ctx, c, http.MethodPost, "/v1/nodes/revoke", RevokeRequest{Name: name})
	return err
}

// Routes lists the routes that nodes offer.
func (c *Client) Routes(ctx context.Context) ([]Route, error) {
	return call[[]Route](ctx, c, http.MethodGet, "/v1/routes", nil)
}

// Approve lets packets follow a route that a node offers.
func (c *Client) Approve(ctx context.Context, node string, prefix netip.Prefix) error {
	_, err := call[struct{}](ctx, c, http.MethodPost, "/v1/routes/approve", ApproveRequest{Node: node, Prefix: prefix})
	return err
}

func call[T any](ctx context.Context, c *Client, method, path string, body any) (T, error) {
	var result T
	content, err := json.Marshal(body)
	if err != nil {
		return result, fmt.Errorf("ask aetherd: %w", err)
	}
	request, err := http.NewRequestWithContext(ctx, method, "http://aetherd"+path, bytes.NewReader(content))
	if err != nil {
		return result, fmt.Errorf("ask aetherd: %w", err)
	}
	response, err := c.http.Do(request)
	if err != nil {
		return result, c.unreachable(err)
	}
	defer response.Body.Close() //nolint:errcheck // nothing is lost when closing a body that was read
	answer, err := io.ReadAll(io.LimitReader(response.Body, maxAnswerBytes))
	if err != nil {
		return result, fmt.Errorf("ask aetherd: %w", err)
	}
	if response.StatusCode != http.StatusOK {
		var refusal errorBody
		if json.Unmarshal(answer, &refusal) != nil || refusal.Error == "" {
			return result, fmt.Errorf("ask aetherd: %s", response.Status)
		}
		return result, errors.New(refusal.Error)
	}
	if err := json.Unmarshal(answer, &result); err != nil {
		return result, fmt.Errorf("ask aetherd: malformed answer: %w", err)
	}
	return result, nil
}

func (c *Client) unreachable(err error) error {
	switch {
	case errors.Is(err, os.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("%w for state %s: start it with `sudo aetherd up`, or name its state with --state DIR",
			ErrNotRunning, c.state)
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("not permitted to talk to aetherd at %s: use sudo, or join the group aetherd",
			SocketPath(c.state))
	}
	return fmt.Errorf("ask aetherd: %w", err)
}
