// Package topic owns Topic Names, Topic Filters and Share Names (MQTT 5 §4.7,
// §4.8.2): their validation, and the one matcher, Trie, that subscriptions,
// routes, retained messages and access rules share.
//
// Nothing is ever normalised: "a/b", "a//b", "/a/b" and "A/b" are four
// different Topic Names ([MQTT-4.7.3-4]); only the Trie's levels and MatchOne
// interpret the separator and the wildcards. Functions are pure; Trie says what
// it allows. There are no locks and no goroutines.
package topic

import (
	"errors"
	"strings"
	"unicode/utf8"
)

// Why a Topic Name, a Topic Filter or a Share Name is not one.
var (
	// ErrEmpty: at least one character ([MQTT-4.7.3-1]).
	ErrEmpty = errors.New("topic is empty")
	// ErrTooLong: more than 65,535 bytes ([MQTT-4.7.3-3]).
	ErrTooLong = errors.New("topic is longer than 65535 bytes")
	// ErrCharacter: U+0000 ([MQTT-4.7.3-2]) or ill-formed UTF-8
	// ([MQTT-1.5.4-1]).
	ErrCharacter = errors.New("topic contains U+0000 or is not UTF-8")
	// ErrTooManyLevels: more than MaxLevels.
	ErrTooManyLevels = errors.New("topic has too many levels")
	// ErrWildcard: a Topic Name contains a wildcard ([MQTT-4.7.0-1]).
	ErrWildcard = errors.New("topic name contains a wildcard")
	// ErrMultiLevel: '#' is not the last character or not alone in its level
	// ([MQTT-4.7.1-1]).
	ErrMultiLevel = errors.New("topic filter has '#' elsewhere than alone in the last level")
	// ErrSingleLevel: '+' is not alone in its level ([MQTT-4.7.1-2]).
	ErrSingleLevel = errors.New("topic filter has '+' beside other characters in a level")
	// ErrShareName: empty, with a wildcard, or without a Topic Filter behind it
	// ([MQTT-4.8.2-1], [MQTT-4.8.2-2]).
	ErrShareName = errors.New("shared subscription is not of the form $share/{ShareName}/{filter}")
)

// separator divides levels. A leading, trailing or doubled one makes an empty
// level, which is a level like any other.
const separator = "/"

// ValidateName reports why s is not a Topic Name that a message can carry.
func ValidateName(s string) error {
	if err := validateText(s); err != nil {
		return err
	}
	if strings.ContainsAny(s, "+#") {
		return ErrWildcard
	}
	return nil
}

// ValidateFilter reports why s is not a Topic Filter. It takes
// $share/{ShareName}/{filter} for a plain filter: see ParseShare.
func ValidateFilter(s string) error {
	if err := validateText(s); err != nil {
		return err
	}
	for more := true; more; {
		var level string
		level, s, more = strings.Cut(s, separator)
		switch {
		case level == "#" && more:
			return ErrMultiLevel
		case len(level) > 1 && strings.Contains(level, "#"):
			return ErrMultiLevel
		case len(level) > 1 && strings.Contains(level, "+"):
			return ErrSingleLevel
		}
	}
	return nil
}

// validateText holds what names and filters have in common.
func validateText(s string) error {
	switch {
	case s == "":
		return ErrEmpty
	case len(s) > MaxBytes:
		return ErrTooLong
	case strings.IndexByte(s, 0) >= 0 || !utf8.ValidString(s):
		return ErrCharacter
	case strings.Count(s, separator) >= MaxLevels:
		return ErrTooManyLevels
	}
	return nil
}
