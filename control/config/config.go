package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"slices"
)

// MaxFileBytes is the largest configuration file that is read.
const MaxFileBytes = 1 << 20

// Config is the whole configuration of one daemon. The zero value is not usable; begin with [Default].
type Config struct {
	Node    Node
	Gateway Gateway
	Routes  Routes
	TLS     TLS
	Log     Log

	// sources says where each explicitly set key came from; keys that are absent hold their default.
	sources map[string]Source
}

// Node is section [node]: this machine.
type Node struct {
	// Name is the node's name in the network, one DNS label; empty means the host name ([NodeName]).
	Name string
	// State is the absolute path of the state directory.
	State string
	// Tun is the name of the device; empty lets the daemon choose the first free "aether" number.
	Tun string
	// MTU is the device's maximum packet size in bytes, or 0 for automatic.
	MTU int
	// Nice is the daemon's scheduling priority on Linux, -20 to 19.
	Nice int
}

// Gateway is section [gateway]: used only by a node that listens.
type Gateway struct {
	// Listen holds the UDP addresses to listen on; never empty in a checked configuration.
	Listen []ListenAddr
	// Advertise holds the addresses that invites carry; empty means every usable one that is found.
	Advertise []HostPort
	// Network holds the prefixes of a new network, at most one of each family; empty means chosen at first
	// start.
	Network []netip.Prefix
	// PortMapping says whether the router is asked to forward the port.
	PortMapping PortMapping
}

// Routes is section [routes]: networks behind this node.
type Routes struct {
	// Advertise holds the prefixes offered to the network, without duplicates or overlaps.
	Advertise []netip.Prefix
}

// TLS is section [tls]: what the handshake may agree on.
type TLS struct {
	KeyExchange KeyExchange
}

// Log is section [log]: what is written and how.
type Log struct {
	Level  LogLevel
	Format LogFormat
}

// Source says where the value of a key came from.
type Source struct {
	// Flag is the flag with its dashes ("--network"); empty when the value came from a file.
	Flag string
	// File, Line and Column name the value's place in a file; Line and Column count from 1.
	File         string
	Line, Column int

	// elements holds the places of a list's members.
	elements []place
}

type place struct{ line, column int }

// Default gives the configuration of a daemon that has no file and no flags.
func Default() Config {
	return Config{
		Node:    Node{State: DefaultStateDir(), Nice: defaultNice},
		Gateway: Gateway{Listen: []ListenAddr{{Port: 443}}, PortMapping: PortMappingAuto},
		TLS:     TLS{KeyExchange: RequireHybrid},
		Log:     Log{Level: LevelInfo, Format: FormatAuto},
	}
}

// Source tells where the value of a dotted key came from; false means that the default holds.
func (c Config) Source(key string) (Source, bool) {
	s, ok := c.sources[key]
	return s, ok
}

// Equal reports whether both hold the same values, wherever those came from; an absent list equals an empty
// one.
func (c Config) Equal(o Config) bool {
	return !slices.ContainsFunc(keyTable(), func(k keySpec) bool { return k.render(&c) != k.render(&o) })
}

// Load reads and checks the file at path. The error is an [*Error] with every problem found; when it is not
// nil the returned Config is the default one. A missing file answers errors.Is(err, fs.ErrNotExist).
func Load(path string) (Config, error) {
	c, problems, cause := load(path)
	return finish(c, problems, cause)
}

// Parse reads and checks data as if it were the content of the file called name, under the same rules as
// [Load].
func Parse(name string, data []byte) (Config, error) {
	c, problems := parse(name, data)
	return finish(c, problems, nil)
}

// Resolve reads the file at path, lays flags over it and checks both the file and the result. A file that
// does not exist is taken as empty unless required is set, which it should be when the user named the path.
// The error is an [*Error] with every problem found; when it is not nil the returned Config is the default
// one.
func Resolve(path string, required bool, flags Flags) (Config, error) {
	c, problems, cause := load(path)
	if !required && errors.Is(cause, fs.ErrNotExist) {
		c, problems, cause = Default(), nil, nil
	}
	c, flagProblems := flags.overlay(c)
	problems = append(problems, flagProblems...)
	return finish(c, append(problems, c.Check()...), cause)
}

func finish(c Config, problems []Problem, cause error) (Config, error) {
	if len(problems) > 0 {
		return Default(), newError(problems, cause)
	}
	return c, nil
}

// load gives the checked content of a file, or the problem of reading it and the cause.
func load(path string) (Config, []Problem, error) {
	data, err := readFile(path)
	if err != nil {
		return Default(), []Problem{{File: path, Message: readMessage(err), Remedy: readRemedy(err)}}, err
	}
	c, problems := parse(path, data)
	return c, problems, nil
}

// parse decodes and checks; problems of decoding do not hide those of checking.
func parse(name string, data []byte) (Config, []Problem) {
	c := Default()
	problems := decode(&c, name, data)
	return c, append(problems, c.Check()...)
}

var (
	errNotRegular = errors.New("not a regular file")
	errTooLarge   = fmt.Errorf("larger than %d bytes", MaxFileBytes)
)

// readFile refuses everything but a regular file, because reading a pipe or a device could block or never
// end.
func readFile(path string) (data []byte, err error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errNotRegular
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	var buf bytes.Buffer
	n, err := buf.ReadFrom(io.LimitReader(f, MaxFileBytes+1))
	if err != nil {
		return nil, err
	}
	if n > MaxFileBytes {
		return nil, errTooLarge
	}
	return buf.Bytes(), nil
}

func readMessage(err error) string {
	var pathErr *fs.PathError
	if errors.As(err, &pathErr) {
		err = pathErr.Err
	}
	return fmt.Sprintf("cannot be read: %v", err)
}

func readRemedy(err error) string {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "create the file or name another one with --config"
	case errors.Is(err, fs.ErrPermission):
		return "run as root or make the file readable for this user"
	case errors.Is(err, errTooLarge):
		return fmt.Sprintf("keep it below %d bytes; is this the right file?", MaxFileBytes)
	case errors.Is(err, errNotRegular):
		return "name a file, not a directory, pipe or device, with --config"
	}
	return "check the disk and the path"
}

// withSource gives a copy of c that remembers where key came from; c's own map is not shared with the copy.
func (c Config) withSource(key string, s Source) Config {
	sources := maps.Clone(c.sources)
	if sources == nil {
		sources = make(map[string]Source)
	}
	sources[key] = s
	c.sources = sources
	return c
}

// clone gives a Config whose lists can be changed without touching c's.
func (c Config) clone() Config {
	c.Gateway.Listen = slices.Clone(c.Gateway.Listen)
	c.Gateway.Advertise = slices.Clone(c.Gateway.Advertise)
	c.Gateway.Network = slices.Clone(c.Gateway.Network)
	c.Routes.Advertise = slices.Clone(c.Routes.Advertise)
	c.sources = maps.Clone(c.sources)
	return c
}
