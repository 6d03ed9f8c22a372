//! What a request names: a path below the directory that is served.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use percent_encoding::{AsciiSet, CONTROLS, NON_ALPHANUMERIC, percent_decode_str, percent_encode};

/// What stays as it is in a segment of a path: the unreserved characters of RFC 3986 section 2.3.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// What a query may not have in a field; all else is left as it came.
const ENCODED_IN_QUERY: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'<').add(b'>');

/// The path of a request, decoded. No segment is empty, `.` or `..`, or has a slash or a zero in it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Target {
    segments: Vec<Vec<u8>>,
    /// It ended in a slash.
    pub(super) is_directory: bool,
    query: Option<String>,
}

impl Target {
    /// Reads the origin form and the absolute form (RFC 9112 sections 3.2.1 and 3.2.2); of which
    /// host the latter speaks does not matter.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (path, query) = match text.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (text, None),
        };
        let path = without_authority(path)?;
        if path.contains('#') || query.is_some_and(|query| query.contains('#')) {
            return None;
        }
        let mut target = Self {
            query: query.map(str::to_owned),
            ..Self::default()
        };
        for segment in path.strip_prefix('/')?.split('/') {
            let segment = decoded(segment)?;
            target.is_directory = matches!(segment.as_slice(), b"" | b".");
            if segment == b".." || segment.iter().any(|byte| matches!(byte, b'/' | 0)) {
                return None;
            }
            if !target.is_directory {
                target.segments.push(segment);
            }
        }
        Some(target)
    }

    /// Relative to the directory that is served.
    pub(super) fn path(&self) -> PathBuf {
        if self.segments.is_empty() {
            return ".".into();
        }
        OsString::from_vec(self.segments.join(&b'/')).into()
    }

    /// The same as a directory, as a reference for the client. It begins with one slash always: two
    /// would name another host.
    pub(super) fn with_slash(&self) -> String {
        let mut text = String::from("/");
        for segment in &self.segments {
            text.extend(percent_encode(segment, ENCODED));
            text.push('/');
        }
        if let Some(query) = &self.query {
            text.push('?');
            text.extend(percent_encode(query.as_bytes(), ENCODED_IN_QUERY));
        }
        text
    }
}

/// The path alone.
fn without_authority(text: &str) -> Option<&str> {
    if text.starts_with('/') {
        return Some(text);
    }
    let (scheme, rest) = text.split_once("://")?;
    let is_http = scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https");
    let start = rest.find('/').unwrap_or(rest.len());
    let (authority, path) = rest.split_at_checked(start)?;
    let path = if path.is_empty() { "/" } else { path };
    (is_http && !authority.is_empty()).then_some(path)
}

/// Takes the percent encoding off. A percent sign without two digits is refused: who means what by
/// it cannot be known.
fn decoded(segment: &str) -> Option<Vec<u8>> {
    let mut parts = segment.split('%');
    parts.next();
    let is_code = |part: &str| {
        let code = part.as_bytes().first_chunk::<2>();
        code.is_some_and(|code| code.iter().all(u8::is_ascii_hexdigit))
    };
    parts
        .all(is_code)
        .then(|| percent_decode_str(segment).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> Option<String> {
        let target = Target::parse(text)?;
        Some(target.path().to_string_lossy().into_owned())
    }

    #[test]
    fn rfc_9112_3_2_1_the_origin_form() {
        for (text, expected) in [
            ("/", "."),
            ("/a", "a"),
            ("/a/b?x=/../y", "a/b"),
            ("//a///./b", "a/b"),
            ("/a%20b/%C3%A9", "a b/é"),
            ("/%2e", "."),
            ("/..a/b..", "..a/b.."),
            ("/%252e%252e", "%2e%2e"),
        ] {
            assert_eq!(path(text).as_deref(), Some(expected), "{text}");
        }
        for bad in [
            "",
            "a",
            "*",
            "/..",
            "/a/../b",
            "/%2e%2E/x",
            "/.%2e",
            "/a%2fb",
            "/a%00",
            "/a%",
            "/a%4",
            "/a%zz",
            "/%+1",
            "/a#b",
            "/a?b#c",
        ] {
            assert_eq!(path(bad), None, "{bad}");
        }
        assert_eq!(
            Target::parse("/%FF").unwrap().path().as_os_str().len(),
            1,
            "any byte is a name"
        );
    }

    #[test]
    fn rfc_9112_3_2_2_the_absolute_form() {
        assert_eq!(path("http://10.0.0.1:80/a/b").as_deref(), Some("a/b"));
        assert_eq!(path("HTTPS://host").as_deref(), Some("."));
        assert_eq!(path("http://host?q").as_deref(), Some("."));
        for bad in [
            "http://",
            "http:///a",
            "ftp://host/a",
            "http:/a",
            "host:80",
            "http://h/../a",
        ] {
            assert_eq!(path(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_redirection_stays_on_this_host_and_in_its_field() {
        let slash = |text: &str| Target::parse(text).unwrap().with_slash();
        assert_eq!(slash("/a/b"), "/a/b/");
        assert_eq!(slash("//evil.example/%2e"), "/evil.example/");
        assert_eq!(
            slash("/a%0d%0aSet-Cookie:x"),
            "/a%0D%0ASet%2DCookie%3Ax/".replace("%2D", "-")
        );
        assert_eq!(slash("/a?b=c&d=%20"), "/a/?b=c&d=%20");
    }
}
