//! Status codes.

use std::fmt;

/// The status of a response (RFC 9110 section 15).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Status {
    /// 200: the whole file.
    Ok,
    /// 206: a range of it.
    PartialContent,
    /// 301: a directory has a slash at its end.
    MovedPermanently,
    /// 304: the client has it already.
    NotModified,
    /// 400: this is no HTTP.
    BadRequest,
    /// 403: the file may not be read.
    Forbidden,
    /// 404: no such file, or none that is served.
    NotFound,
    /// 405: neither GET nor HEAD.
    MethodNotAllowed,
    /// 408: the request was not complete in time.
    RequestTimeout,
    /// 412: the file is not the one that was meant.
    PreconditionFailed,
    /// 413: a request with content.
    ContentTooLarge,
    /// 414: the request line does not end.
    UriTooLong,
    /// 416: the file does not have this range.
    RangeNotSatisfiable,
    /// 431: too many header fields, or too long ones (RFC 6585 section 5).
    FieldsTooLarge,
    /// 503: no file can be opened now.
    Unavailable,
    /// 505: another version of HTTP.
    VersionNotSupported,
}

impl Status {
    /// The code, of three digits.
    #[must_use]
    pub const fn code(self) -> u16 {
        match self {
            Self::Ok => 200,
            Self::PartialContent => 206,
            Self::MovedPermanently => 301,
            Self::NotModified => 304,
            Self::BadRequest => 400,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::RequestTimeout => 408,
            Self::PreconditionFailed => 412,
            Self::ContentTooLarge => 413,
            Self::UriTooLong => 414,
            Self::RangeNotSatisfiable => 416,
            Self::FieldsTooLarge => 431,
            Self::Unavailable => 503,
            Self::VersionNotSupported => 505,
        }
    }

    /// Its name.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::PartialContent => "Partial Content",
            Self::MovedPermanently => "Moved Permanently",
            Self::NotModified => "Not Modified",
            Self::BadRequest => "Bad Request",
            Self::Forbidden => "Forbidden",
            Self::NotFound => "Not Found",
            Self::MethodNotAllowed => "Method Not Allowed",
            Self::RequestTimeout => "Request Timeout",
            Self::PreconditionFailed => "Precondition Failed",
            Self::ContentTooLarge => "Content Too Large",
            Self::UriTooLong => "URI Too Long",
            Self::RangeNotSatisfiable => "Range Not Satisfiable",
            Self::FieldsTooLarge => "Request Header Fields Too Large",
            Self::Unavailable => "Service Unavailable",
            Self::VersionNotSupported => "HTTP Version Not Supported",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.code(), self.reason())
    }
}
