// Package lab builds small networks out of nothing but the running kernel, for the demonstration, the
// benchmark and the end-to-end tests: anonymous network namespaces, veth pairs between them, and links
// whose delay, loss, rate and MTU are emulated in user space. It uses no external tool, leaves nothing
// behind when the process ends, and never touches the namespace the process was started in.
//
// A network is written the way one would draw it. Interfaces are named by their place, links join two
// of them:
//
//	laptop, err := lab.NewNamespace("laptop")
//	gateway, err := lab.NewNamespace("gateway")
//	defer laptop.Close()
//	defer gateway.Close()
//
//	wifi, uplink := laptop.Interface("wifi0"), gateway.Interface("eth0")
//	link, err := lab.Emulate(wifi, uplink, lab.EmulatorConfig{Seed: 7})
//	defer link.Close()
//
//	err = wifi.AddAddress("192.0.2.2/24", "2001:db8::2/64")
//	err = uplink.AddAddress("192.0.2.1/24", "2001:db8::1/64")
//	err = laptop.AddRoute("0.0.0.0/0", "192.0.2.1")
//
//	err = link.SetBoth(impair.Impairments{Delay: 20 * time.Millisecond, BitsPerSecond: 20e6})
//
// Programs run inside with [Namespace.Command], Go code with [Namespace.Do]; traffic comes from package
// lab/traffic, whose end points take a namespace as the host they run on:
//
//	server, err := traffic.Serve(ctx, gateway, "192.0.2.1:0")
//	bulk, err := traffic.Bulk{Streams: 8, Duration: 5 * time.Second}.Run(ctx, laptop, server.Addr())
//	fmt.Println(bulk.BitsPerSecond())
//
// The package works on Linux alone, as root or as root of a user namespace of one's own (see
// [AsNamespaceRoot]); elsewhere it is empty. The decisions of an emulated link are in package
// lab/impair, which has no clock and no device and compiles everywhere.
package lab
