//! The API's own description. It stands in docs/openapi.json; a test compares it with the routes.

use axum::{http::header, response::IntoResponse};

pub(super) const DOCUMENT: &str = include_str!("../../../../docs/openapi.json");

pub(super) async fn document() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], DOCUMENT)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;
    use crate::api::{
        auth::Role,
        routes::{ROUTES, Route},
    };

    #[test]
    fn every_route_is_described_with_its_role_and_nothing_else_is() {
        let document: Value = serde_json::from_str(DOCUMENT).unwrap();
        let mut described = BTreeSet::new();
        for (path, methods) in document["paths"].as_object().unwrap() {
            let methods = methods.as_object().unwrap().iter().filter(|(method, _)| *method != "parameters");
            described.extend(methods.map(|(method, what)| (path.clone(), method.to_uppercase(), role(what))));
        }
        let route = |Route(method, path, role, _): &Route| {
            ((*path).to_owned(), (*method).to_owned(), role.map(|role| format!("{role:?}").to_lowercase()))
        };
        assert_eq!(described, ROUTES.iter().map(route).collect());
    }

    #[test]
    fn every_operation_has_a_name_of_its_own_for_generated_clients() {
        let document: Value = serde_json::from_str(DOCUMENT).unwrap();
        let methods = document["paths"].as_object().unwrap().values().flat_map(|methods| methods.as_object().unwrap());
        let names: Vec<&str> = methods
            .filter(|(method, _)| *method != "parameters")
            .map(|(method, what)| what["operationId"].as_str().unwrap_or_else(|| panic!("{method} of {what}")))
            .collect();
        assert!(
            names.iter().all(|name| name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')),
            "{names:?}"
        );
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len(), "{names:?}");
    }

    /// `x-role`, which must agree with what is said of tokens.
    fn role(what: &Value) -> Option<String> {
        let role = what["x-role"].as_str().map(str::to_owned);
        assert_eq!(what["security"] == serde_json::json!([]), role.is_none(), "{what}");
        for status in ["401", "403"] {
            assert_eq!(what["responses"][status].is_object(), role.is_some(), "{status} of {what}");
        }
        assert!(role.as_deref().is_none_or(|role| ["reader", "admin"].contains(&role)), "{role:?}");
        assert!(Role::Reader < Role::Admin);
        role
    }
}
