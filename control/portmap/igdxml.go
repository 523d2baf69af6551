package portmap

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

const (
	// maxXMLDepth is above what descriptions need: root, device, list, device, list, device, list, service,
	// leaf.
	maxXMLDepth = 24
	// maxServices bounds the services kept from one description.
	maxServices = 8
	// maxFields and maxFieldBytes bound what is kept from one answer.
	maxFields     = 32
	maxFieldBytes = 512
)

// The services that can map ports, best first (UPnP IGD version 2, then 1).
const (
	serviceIP2  = "urn:schemas-upnp-org:service:WANIPConnection:2"
	serviceIP1  = "urn:schemas-upnp-org:service:WANIPConnection:1"
	servicePPP1 = "urn:schemas-upnp-org:service:WANPPPConnection:1"
)

// igdService is one service of a description.
type igdService struct {
	kind    string // one of the service types above
	control string // as written in the description, not yet judged
}

// parseDescription reads a device description (UPnP Device Architecture 1.1, section 2.3) and gives the base
// address if it names one, and the services that can map ports, best first.
func parseDescription(data []byte) (base string, services []igdService, err error) {
	var found [3][]igdService
	var service igdService
	err = walkXML(data, func(path []string, text string) bool {
		switch leaf := path[len(path)-1]; {
		case leaf == "URLBase" && len(path) == 2:
			base = text
		case leaf == "service":
			if i := serviceRank(service.kind); i >= 0 && service.control != "" && len(found[i]) < maxServices {
				found[i] = append(found[i], service)
			}
			service = igdService{}
		case leaf == "serviceType":
			service.kind = text
		case leaf == "controlURL":
			service.control = text
		}
		return true
	})
	if err != nil {
		return "", nil, err
	}
	for _, list := range found {
		services = append(services, list...)
	}
	return base, services, nil
}

func serviceRank(kind string) int {
	switch kind {
	case serviceIP2:
		return 0
	case serviceIP1:
		return 1
	case servicePPP1:
		return 2
	}
	return -1
}

// soapFault is a UPnP error inside a SOAP fault, UPnP Device Architecture 1.1, section 3.2.5.
type soapFault struct {
	code int
	text string
}

// parseSOAP reads the answer to an action: the leaves by name, and the fault if it is one.
func parseSOAP(data []byte) (map[string]string, *soapFault, error) {
	fields := make(map[string]string)
	isFault := false
	err := walkXML(data, func(path []string, text string) bool {
		isFault = isFault || path[len(path)-1] == "Fault"
		if len(fields) < maxFields {
			fields[path[len(path)-1]] = text
		}
		return true
	})
	if err != nil {
		return nil, nil, err
	}
	if !isFault {
		return fields, nil, nil
	}
	code, err := strconv.Atoi(fields["errorCode"])
	if err != nil {
		return nil, nil, fmt.Errorf("%w: SOAP fault without a code", errMalformed)
	}
	return nil, &soapFault{code: code, text: printable(fields["errorDescription"])}, nil
}

// printable keeps the router's words from writing control characters into a log.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if strconv.IsPrint(r) {
			return r
		}
		return ' '
	}, s)
}

// walkXML calls end at the end of every element with the names down to it and the text directly inside it,
// cut to a bound. It stops when end returns false. Recursion and entity expansion do not happen; the size is
// the caller's.
func walkXML(data []byte, end func(path []string, text string) bool) error {
	decoder := xml.NewDecoder(bytes.NewReader(data))
	decoder.CharsetReader = latin1Reader
	decoder.Strict = false
	var path []string
	texts := make([][]byte, maxXMLDepth+1)
	for {
		token, err := decoder.RawToken()
		switch {
		case errors.Is(err, io.EOF) && len(path) == 0:
			return nil
		case err != nil:
			return fmt.Errorf("%w: %w", errMalformed, err)
		}
		switch token := token.(type) {
		case xml.StartElement:
			if len(path) == maxXMLDepth {
				return fmt.Errorf("%w: XML deeper than %d", errMalformed, maxXMLDepth)
			}
			path = append(path, token.Name.Local)
			texts[len(path)] = texts[len(path)][:0]
		case xml.CharData:
			text := &texts[len(path)]
			*text = append(*text, token[:min(len(token), maxFieldBytes-len(*text))]...)
		case xml.EndElement:
			if len(path) == 0 || path[len(path)-1] != token.Name.Local {
				return fmt.Errorf("%w: XML elements do not match", errMalformed)
			}
			if !end(path, string(bytes.TrimSpace(texts[len(path)]))) {
				return nil
			}
			path = path[:len(path)-1]
		}
	}
}

// latin1Reader reads the single-byte encodings that old routers declare; what matters in their answers is
// ASCII.
func latin1Reader(charset string, input io.Reader) (io.Reader, error) {
	switch strings.ToLower(charset) {
	case "utf8", "utf-8", "us-ascii", "ascii":
		return input, nil
	case "iso-8859-1", "iso-8859-15", "windows-1252", "latin1":
	default:
		return nil, fmt.Errorf("%w: character set not known", errMalformed)
	}
	data, err := io.ReadAll(input)
	if err != nil {
		return nil, err
	}
	runes := make([]rune, len(data))
	for i, b := range data {
		runes[i] = rune(b)
	}
	return strings.NewReader(string(runes)), nil
}

// soapArgument is one argument of an action; their order is part of the action.
type soapArgument struct{ name, value string }

// soapRequest renders the call of an action, UPnP Device Architecture 1.1, section 3.2.1.
func soapRequest(kind, action string, arguments []soapArgument) ([]byte, error) {
	var b bytes.Buffer
	b.WriteString(`<?xml version="1.0"?>` + "\r\n" +
		`<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/" ` +
		`s:encodingStyle="http://schemas.xmlsoap.org/soap/encoding/"><s:Body>`)
	fmt.Fprintf(&b, `<u:%s xmlns:u="%s">`, action, kind)
	for _, a := range arguments {
		fmt.Fprintf(&b, "<%s>", a.name)
		if err := xml.EscapeText(&b, []byte(a.value)); err != nil {
			return nil, fmt.Errorf("render %s: %w", action, err)
		}
		fmt.Fprintf(&b, "</%s>", a.name)
	}
	fmt.Fprintf(&b, "</u:%s></s:Body></s:Envelope>\r\n", action)
	return b.Bytes(), nil
}
