//! The head of a request: read by `httparse`, and what RFC 9112 asks of it beyond syntax.

use httparse::{Error, Header};

use super::Status;
use super::target::Target;

/// The longest head of a request in bytes. RFC 9112 section 3 recommends 8000 for its first line.
pub const MAX_HEAD: usize = 8 << 10;

/// The most header fields of a request.
pub const MAX_FIELDS: usize = 64;

/// What stands at the front of the bytes that have arrived.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Parsed {
    /// More bytes are needed.
    Incomplete,
    /// A request in as many bytes; the next one begins behind them.
    Request(Box<Request>, usize),
    /// No request that can be answered otherwise than by a refusal. Where the next one begins
    /// cannot be told, so the connection ends with it.
    Bad(Bad),
}

/// A refused request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bad {
    /// Why.
    pub status: Status,
    /// It was a HEAD: its answer has no content (RFC 9110 section 9.3.2).
    pub is_head: bool,
}

/// What is to be done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Method {
    /// The file.
    Get,
    /// What would be said of it.
    Head,
    /// Not allowed here.
    Other,
}

/// A request without content. Fields that came several times are joined by commas (RFC 9110
/// section 5.3), which makes nonsense of those that are no lists, and they are ignored as such.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// The method as it was sent.
    pub method_text: String,
    /// The target as it was sent.
    pub target_text: String,
    /// The minor version: 0 or 1.
    pub version: u8,
    /// Whether the client wants to go on with this connection (RFC 9112 section 9.3).
    pub keep_alive: bool,
    pub(super) target: Target,
    pub(super) range: Option<String>,
    pub(super) if_range: Option<String>,
    pub(super) if_match: Option<String>,
    pub(super) if_none_match: Option<String>,
    pub(super) if_modified_since: Option<String>,
    pub(super) if_unmodified_since: Option<String>,
}

/// Reads one request from the front of `bytes`.
#[must_use]
pub fn parse(bytes: &[u8]) -> Parsed {
    let window = bytes.get(..MAX_HEAD).unwrap_or(bytes);
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut head = httparse::Request::new(&mut fields);
    let parsed = head.parse(window);
    let is_head = head.method == Some("HEAD");
    let refused = |status| Parsed::Bad(Bad { status, is_head });
    match parsed {
        Ok(httparse::Status::Complete(len)) => match checked(&head) {
            Ok(request) => Parsed::Request(Box::new(request), len),
            Err(status) => refused(status),
        },
        Ok(httparse::Status::Partial) if bytes.len() < MAX_HEAD => Parsed::Incomplete,
        Ok(httparse::Status::Partial) => refused(match (head.method, head.version) {
            (Some(_), None) => Status::UriTooLong,
            (Some(_), Some(_)) => Status::FieldsTooLarge,
            (None, _) => Status::BadRequest,
        }),
        Err(Error::TooManyHeaders) => refused(Status::FieldsTooLarge),
        Err(Error::Version) if is_of_other_version(window) => refused(Status::VersionNotSupported),
        Err(_) => refused(Status::BadRequest),
    }
}

/// Whether the request line ends in a version of HTTP: `HTTP/2.0`, say.
fn is_of_other_version(bytes: &[u8]) -> bool {
    let mut lines = bytes.split(|byte| matches!(byte, b'\r' | b'\n'));
    let line = lines.find(|line| !line.is_empty()).unwrap_or_default();
    let version = line.rsplit(|byte| *byte == b' ').next();
    let digits = version.and_then(|version| version.strip_prefix(b"HTTP/"));
    matches!(digits, Some([major, b'.', minor]) if major.is_ascii_digit() && minor.is_ascii_digit())
}

fn checked(head: &httparse::Request<'_, '_>) -> Result<Request, Status> {
    let (Some(method), Some(target), Some(version)) = (head.method, head.path, head.version) else {
        return Err(Status::BadRequest);
    };
    check_host(head.headers, version)?;
    let has_content = has_content(head.headers, version)?;
    let method_text = method.to_owned();
    let method = match method {
        "GET" => Method::Get,
        "HEAD" => Method::Head,
        _ => Method::Other,
    };
    if has_content && method != Method::Other {
        return Err(Status::ContentTooLarge);
    }
    let parsed = match Target::parse(target) {
        Some(target) => target,
        // "*" and "host:port" are targets of other methods (RFC 9112 section 3.2).
        None if method == Method::Other => Target::default(),
        None => return Err(Status::BadRequest),
    };
    let field = |name| joined(head.headers, name);
    Ok(Request {
        method,
        method_text,
        target_text: target.to_owned(),
        version,
        // What follows as content would be taken for the next request.
        keep_alive: !has_content && keeps_alive(head.headers, version),
        target: parsed,
        range: field("range"),
        if_range: field("if-range"),
        if_match: field("if-match"),
        if_none_match: field("if-none-match"),
        if_modified_since: field("if-modified-since"),
        if_unmodified_since: field("if-unmodified-since"),
    })
}

fn values<'a>(fields: &'a [Header<'_>], name: &'static str) -> impl Iterator<Item = &'a [u8]> {
    let wanted = move |field: &&Header<'_>| field.name.eq_ignore_ascii_case(name);
    fields.iter().filter(wanted).map(|field| field.value)
}

/// The value of all fields of this name. Bytes that are no text make nonsense of it.
fn joined(fields: &[Header<'_>], name: &'static str) -> Option<String> {
    let texts: Vec<_> = values(fields, name).map(String::from_utf8_lossy).collect();
    (!texts.is_empty()).then(|| texts.join(", "))
}

/// RFC 9112 section 3.2: HTTP/1.1 has one field Host, and nobody has an invalid one or several.
fn check_host(fields: &[Header<'_>], version: u8) -> Result<(), Status> {
    let mut hosts = values(fields, "host");
    let first = hosts.next();
    if hosts.next().is_some() || (first.is_none() && version > 0) {
        return Err(Status::BadRequest);
    }
    // The characters of RFC 3986 section 3.2.2 and a port; what it names does not matter here.
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=%:[]".contains(byte);
    match first {
        Some(host) if !host.iter().all(allowed) => Err(Status::BadRequest),
        _ => Ok(()),
    }
}

/// Whether content follows (RFC 9112 section 6.3). Where it would end must not be in doubt, or what
/// a proxy takes for content is a request for us.
fn has_content(fields: &[Header<'_>], version: u8) -> Result<bool, Status> {
    let coded = values(fields, "transfer-encoding").next().is_some();
    let mut len = None;
    for value in values(fields, "content-length") {
        for value in value.split(|byte| *byte == b',') {
            let value = value.trim_ascii();
            if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
                return Err(Status::BadRequest);
            }
            if *len.get_or_insert(value) != value {
                return Err(Status::BadRequest);
            }
        }
    }
    if coded && (len.is_some() || version == 0) {
        return Err(Status::BadRequest);
    }
    let is_none = len.is_none_or(|len| len.iter().all(|digit| *digit == b'0'));
    Ok(coded || !is_none)
}

/// RFC 9112 section 9.3: HTTP/1.1 goes on unless told otherwise, HTTP/1.0 the other way round.
fn keeps_alive(fields: &[Header<'_>], version: u8) -> bool {
    let has = |option: &[u8]| {
        let lists = values(fields, "connection");
        let mut options = lists.flat_map(|list| list.split(|byte| *byte == b','));
        options.any(|given| given.trim_ascii().eq_ignore_ascii_case(option))
    };
    !has(b"close") && (version > 0 || has(b"keep-alive"))
}
