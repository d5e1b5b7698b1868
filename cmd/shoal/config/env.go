package config

import (
	"regexp"
	"strings"
)

const envPrefix = "SHOAL_"

// Variables with our prefix that others set: Kubernetes announces a Service
// called shoal, or shoal-x, with the first pattern's names; SHOAL_CHAOS
// belongs to the test that starts us.
var foreignEnv = regexp.MustCompile(`_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)$|^SHOAL_CHAOS$`)

// EnvName is the environment variable of a key: node-id is SHOAL_NODE_ID. A
// dot, which would separate a section from its key, is a double underscore.
func EnvName(name string) string {
	return envPrefix + strings.NewReplacer("-", "_", ".", "__").Replace(strings.ToUpper(name))
}

// readEnv finds the values of all keys and the path of the YAML file. An empty
// variable counts as not set.
func readEnv(environ []string) (values map[string]source, file string, errs []error) {
	names := map[string]string{EnvName(FileFlag): FileFlag}
	for _, k := range keys {
		names[EnvName(k.name)] = k.name
	}
	values = map[string]source{}
	for _, entry := range environ {
		name, value, _ := strings.Cut(entry, "=")
		if !strings.HasPrefix(name, envPrefix) || value == "" {
			continue
		}
		switch key, known := names[name]; {
		case key == FileFlag:
			file = value
		case known:
			values[key] = source{fromEnv, name, value}
		case !foreignEnv.MatchString(name):
			errs = append(errs, unknown("environment", name, EnvName(nearestKey(keyForm(name)))))
		}
	}
	return values, file, errs
}

// keyForm is the key that an environment variable would name.
func keyForm(env string) string {
	return strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(env, envPrefix)), "_", "-")
}
