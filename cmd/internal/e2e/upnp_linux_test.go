package e2e

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strconv"
	"strings"

	"github.com/aethertunnel/aethertunnel/cmd/internal/lab/traffic"
)

const (
	upnpDevice  = "urn:schemas-upnp-org:device:InternetGatewayDevice:1"
	upnpService = "urn:schemas-upnp-org:service:WANIPConnection:1"
)

// serveUPnP makes the router an Internet Gateway Device of version 1: it answers searches, describes itself,
// and takes the actions for port mappings.
func (r *homeRouter) serveUPnP() {
	r.t.Helper()
	routes := http.NewServeMux()
	routes.HandleFunc("GET /description.xml", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, `<?xml version="1.0"?><root xmlns="urn:schemas-upnp-org:device-1-0"><device>`+
			`<deviceType>%s</deviceType><serviceList><service><serviceType>%s</serviceType>`+
			`<controlURL>/control</controlURL></service></serviceList></device></root>`, upnpDevice, upnpService)
	})
	routes.HandleFunc("POST /control", r.act)
	server, err := traffic.ServeWeb(r.machine, homeLAN+":0", routes)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() {
		if err := server.Close(); err != nil {
			r.t.Error(err)
		}
	})
	r.serve(":1900", func(request []byte, _ netip.AddrPort) []byte {
		if text := string(request); !strings.HasPrefix(text, "M-SEARCH * ") || !strings.Contains(text, upnpDevice) {
			return nil
		}
		return fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nCACHE-CONTROL: max-age=120\r\nEXT:\r\n"+
			"ST: %s\r\nUSN: uuid:router::%s\r\nLOCATION: %sdescription.xml\r\n\r\n", upnpDevice, upnpDevice, server.URL())
	})
}

// A soapCall is the body of an action: the one element in it, with its arguments.
type soapCall struct {
	Body struct {
		Action struct {
			XMLName   xml.Name
			Arguments []struct {
				XMLName xml.Name
				Value   string `xml:",chardata"`
			} `xml:",any"`
		} `xml:",any"`
	}
}

// act carries an action out, as the service's specification describes it.
func (r *homeRouter) act(w http.ResponseWriter, request *http.Request) {
	body, err := io.ReadAll(request.Body)
	var call soapCall
	if err := errors.Join(err, xml.Unmarshal(body, &call)); err != nil {
		r.t.Errorf("an action that is not XML: %v", err)
		http.Error(w, "bad call", http.StatusBadRequest)
		return
	}
	action := call.Body.Action.XMLName.Local
	if want := `"` + upnpService + "#" + action + `"`; request.Header.Get("SOAPAction") != want {
		r.t.Errorf("the action %s has the header %q", action, request.Header.Get("SOAPAction"))
	}
	arguments := map[string]string{}
	for _, a := range call.Body.Action.Arguments {
		arguments[a.XMLName.Local] = a.Value
	}
	answer, code := r.perform(action, arguments, request.RemoteAddr)
	const envelope = `<?xml version="1.0"?><s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/">` +
		`<s:Body>%s</s:Body></s:Envelope>`
	if code != 0 {
		w.WriteHeader(http.StatusInternalServerError)
		answer = fmt.Sprintf(`<s:Fault><faultcode>s:Client</faultcode><faultstring>UPnPError</faultstring>`+
			`<detail><UPnPError xmlns="urn:schemas-upnp-org:control-1-0"><errorCode>%d</errorCode></UPnPError>`+
			`</detail></s:Fault>`, code)
	} else {
		answer = fmt.Sprintf(`<u:%[1]sResponse xmlns:u="%[2]s">%[3]s</u:%[1]sResponse>`, action, upnpService, answer)
	}
	fmt.Fprintf(w, envelope, answer)
}

// perform returns the answer to an action, or an error's code.
func (r *homeRouter) perform(action string, arguments map[string]string, from string) (answer string, code int) {
	const (
		unknownAction, invalidArguments, notAuthorized = 401, 402, 606
		noSuchEntry, conflict                          = 714, 718
	)
	port := func(name string) uint16 {
		n, err := strconv.ParseUint(arguments[name], 10, 16)
		if err != nil {
			r.t.Errorf("%s of %s: %v", name, action, err)
		}
		return uint16(n)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	switch action {
	case "GetExternalIPAddress":
		return "<NewExternalIPAddress>" + homeOutside + "</NewExternalIPAddress>", 0
	case "GetSpecificPortMappingEntry":
		if outside := port("NewExternalPort"); outside == portOfOthers {
			return "<NewInternalPort>443</NewInternalPort><NewInternalClient>192.168.1.77</NewInternalClient>", 0
		}
		for _, m := range r.mapped {
			if m.outside == port("NewExternalPort") {
				return fmt.Sprintf("<NewInternalPort>%d</NewInternalPort><NewInternalClient>%s</NewInternalClient>",
					m.inside.Port(), m.inside.Addr()), 0
			}
		}
		return "", noSuchEntry
	case "AddPortMapping":
		if port("NewExternalPort") == portOfOthers {
			return "", conflict
		}
		inside, err := netip.ParseAddr(arguments["NewInternalClient"])
		if err != nil || !strings.HasPrefix(from, inside.String()+":") {
			return "", notAuthorized
		}
		lease, err := strconv.ParseUint(arguments["NewLeaseDuration"], 10, 32)
		if err != nil || arguments["NewProtocol"] != "UDP" || arguments["NewEnabled"] != "1" {
			return "", invalidArguments
		}
		// A lease of 0 seconds would last for ever, which nobody should ask for who can renew.
		r.grant(port("NewExternalPort"), netip.AddrPortFrom(inside, port("NewInternalPort")), uint32(lease))
		return "", 0
	case "DeletePortMapping":
		for _, m := range r.mapped {
			if m.outside == port("NewExternalPort") {
				r.grant(m.outside, m.inside, 0)
				return "", 0
			}
		}
		return "", noSuchEntry
	}
	return "", unknownAction
}
