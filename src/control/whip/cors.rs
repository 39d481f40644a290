//! What pages of other sites may do here (Fetch standard): everything that this API is made of.
//!
//! Each header stands in each answer exactly once, errors included: a page cannot even read the
//! status of an answer without them, and browsers refuse an answer that has one twice.

use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, HeaderName, HeaderValue,
};
use axum::response::Response;

/// Adds the headers to an answer, in the place of any that it has.
pub(super) async fn allow(mut response: Response) -> Response {
    for (name, value) in HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// `*` would not cover `Authorization`.
const HEADERS: [(HeaderName, &str); 5] = [
    (ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
    (ACCESS_CONTROL_ALLOW_METHODS, "OPTIONS, GET, HEAD, POST, PATCH, DELETE"),
    (ACCESS_CONTROL_ALLOW_HEADERS, "Authorization, Content-Type, If-Match, If-None-Match"),
    (
        ACCESS_CONTROL_EXPOSE_HEADERS,
        "Location, ETag, Link, Accept-Patch, Accept-Post, Retry-After, ID, WWW-Authenticate",
    ),
    (ACCESS_CONTROL_MAX_AGE, "86400"),
];
