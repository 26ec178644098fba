//! What the service says of itself: versions, schemas, stores, ways of import.

use axum::{
    Json,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

use super::{
    attributes::{CONTAINER_FORMATS, DISK_FORMATS, VISIBILITIES},
    bits::OWN_STORE,
    locations::HTTP_STORE,
};

/// The versions that Glance 33 names with several stores and no cache; the first one is the current one.
const VERSIONS: [&str; 16] = [
    "2.17", "2.16", "2.15", "2.13", "2.12", "2.11", "2.10", "2.9", "2.8", "2.7", "2.6", "2.5", "2.4", "2.3", "2.2",
    "2.0",
];

/// `GET /`: there are several versions to choose from.
pub(super) async fn choices(headers: HeaderMap) -> Response {
    (StatusCode::MULTIPLE_CHOICES, versions(headers).await).into_response()
}

pub(super) async fn versions(headers: HeaderMap) -> Json<Value> {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or("localhost");
    let describe = |(place, version): (usize, &&str)| {
        json!({
            "id": format!("v{version}"),
            "status": if place == 0 { "CURRENT" } else { "SUPPORTED" },
            "links": [{"rel": "self", "href": format!("http://{host}/v2/")}],
        })
    };
    let versions: Vec<_> = VERSIONS.iter().enumerate().map(describe).collect();
    Json(json!({"versions": versions}))
}

/// No way of import: clients upload with `PUT …/file`.
pub(super) async fn import_methods() -> Json<Value> {
    Json(json!({"import-methods": {
        "description": "Import methods available.",
        "type": "array",
        "value": [],
    }}))
}

pub(super) async fn stores() -> Json<Value> {
    Json(json!({"stores": [
        {"id": OWN_STORE, "default": "true"},
        {"id": HTTP_STORE, "read-only": "true"},
    ]}))
}

pub(super) async fn stores_in_detail() -> Json<Value> {
    Json(json!({"stores": [
        {"id": OWN_STORE, "type": "file", "weight": 0, "default": "true", "properties": {}},
        {"id": HTTP_STORE, "type": "http", "weight": 0, "read-only": "true", "properties": {}},
    ]}))
}

pub(super) async fn image_schema() -> Json<Value> {
    Json(image())
}

pub(super) async fn images_schema() -> Json<Value> {
    Json(collection("images", &image()))
}

pub(super) async fn member_schema() -> Json<Value> {
    Json(member())
}

pub(super) async fn members_schema() -> Json<Value> {
    Json(collection("members", &member()))
}

/// The schema by which the clients tell fields from properties, and the fields that they may not send.
fn image() -> Value {
    json!({
        "name": "image",
        "additionalProperties": {"type": "string"},
        "links": [
            {"rel": "self", "href": "{self}"},
            {"rel": "enclosure", "href": "{file}"},
            {"rel": "describedby", "href": "{schema}"},
        ],
        "properties": {
            "id": {"type": "string", "pattern": "^([0-9a-fA-F]){8}-([0-9a-fA-F]){4}-([0-9a-fA-F]){4}-([0-9a-fA-F]){4}-([0-9a-fA-F]){12}$", "description": "An identifier for the image"},
            "name": {"type": ["null", "string"], "maxLength": 255, "description": "Descriptive name for the image"},
            "status": {"type": "string", "readOnly": true, "description": "Status of the image"},
            "visibility": {"type": "string", "enum": VISIBILITIES, "description": "Scope of image accessibility"},
            "protected": {"type": "boolean", "description": "If true, image will not be deletable."},
            "os_hidden": {"type": "boolean", "description": "If true, image will not appear in default image list response."},
            "checksum": {"type": ["null", "string"], "readOnly": true, "maxLength": 32, "description": "md5 hash of image contents."},
            "os_hash_algo": {"type": ["null", "string"], "readOnly": true, "maxLength": 64, "description": "Algorithm to calculate the os_hash_value"},
            "os_hash_value": {"type": ["null", "string"], "readOnly": true, "maxLength": 128, "description": "Hexdigest of the image contents using the algorithm specified by the os_hash_algo"},
            "owner": {"type": ["null", "string"], "maxLength": 255, "description": "Owner of the image"},
            "size": {"type": ["null", "integer"], "readOnly": true, "description": "Size of image file in bytes"},
            "virtual_size": {"type": ["null", "integer"], "readOnly": true, "description": "Virtual size of image in bytes"},
            "container_format": {"type": ["null", "string"], "enum": or_null(&CONTAINER_FORMATS), "description": "Format of the container"},
            "disk_format": {"type": ["null", "string"], "enum": or_null(&DISK_FORMATS), "description": "Format of the disk"},
            "created_at": {"type": "string", "readOnly": true, "description": "Date and time of image registration"},
            "updated_at": {"type": "string", "readOnly": true, "description": "Date and time of the last image modification"},
            "tags": {"type": "array", "items": {"type": "string", "maxLength": 255}, "description": "List of strings related to the image"},
            "direct_url": {"type": "string", "readOnly": true, "description": "URL to access the image file kept in external store"},
            "min_ram": {"type": "integer", "description": "Amount of ram (in MB) required to boot image."},
            "min_disk": {"type": "integer", "description": "Amount of disk space (in GB) required to boot image."},
            "self": {"type": "string", "readOnly": true, "description": "An image self url"},
            "file": {"type": "string", "readOnly": true, "description": "An image file url"},
            "stores": {"type": "string", "readOnly": true, "description": "Store in which image data resides."},
            "schema": {"type": "string", "readOnly": true, "description": "An image schema url"},
            "locations": {
                "type": "array",
                "description": "A set of URLs to access the image file kept in external store",
                "items": {
                    "type": "object",
                    "required": ["url", "metadata"],
                    "properties": {
                        "url": {"type": "string", "maxLength": 255},
                        "metadata": {"type": "object"},
                        "validation_data": {"type": "object", "writeOnly": true},
                    },
                },
            },
        },
    })
}

fn member() -> Value {
    json!({
        "name": "member",
        "properties": {
            "member_id": {"type": "string", "description": "An identifier for the image member (tenantId)"},
            "image_id": {"type": "string", "description": "An identifier for the image"},
            "status": {"type": "string", "enum": ["pending", "accepted", "rejected"], "description": "The status of this image member"},
            "created_at": {"type": "string", "description": "Date and time of image member creation"},
            "updated_at": {"type": "string", "description": "Date and time of last modification of image member"},
            "schema": {"type": "string", "readOnly": true},
        },
    })
}

fn collection(name: &str, item: &Value) -> Value {
    json!({
        "name": name,
        "properties": {
            name: {"type": "array", "items": item},
            "first": {"type": "string"},
            "next": {"type": "string"},
            "schema": {"type": "string"},
        },
        "links": [
            {"rel": "first", "href": "{first}"},
            {"rel": "next", "href": "{next}"},
            {"rel": "describedby", "href": "{schema}"},
        ],
    })
}

fn or_null(names: &[&str]) -> Vec<Value> {
    let names = names.iter().map(|name| json!(name));
    std::iter::once(Value::Null).chain(names).collect()
}
