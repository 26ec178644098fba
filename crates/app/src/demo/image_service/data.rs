//! An image's bits: `PUT` and `GET /v2/images/{id}/file`.

use std::{ops::Range, sync::Arc};

use axum::{
    body::Body,
    extract::{Path, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use tokio::fs::File;

use super::{
    super::web::{self, Wanted},
    Service,
    bits::Receipt,
    catalogue::Catalogue,
    fault::Fault,
    image::{Image, Status},
};

/// What Glance says at the end of an upload.
const UPLOADED: [&str; 3] = ["image.upload", "image.activate", "image.update"];

pub(super) async fn upload(
    State(service): State<Service>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<StatusCode, Fault> {
    check_media_type(&headers)?;
    let announced = announced_size(&headers)?;
    let saving = Saving::begin(&service.catalogue, id)?;
    let (pending, receipt) = service.bits.receive(&saving.id, body).await?;
    if let Some(announced) = announced.filter(|announced| *announced != receipt.size) {
        let size = receipt.size;
        return Err(Fault::bad_request(format!("{announced} bytes were announced, {size} came")));
    }
    saving.finish(receipt)?;
    pending.keep();
    Ok(StatusCode::NO_CONTENT)
}

/// Answers from this service's own file alone: without it there is nothing to give, as in Glance when its store lost
/// the bits.
pub(super) async fn download(
    State(service): State<Service>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Fault> {
    let image = service.catalogue.get(&id)?;
    if !matches!(image.status, Status::Active | Status::Deactivated) {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let Some((file, size)) = service.bits.read(&id).await? else {
        return Ok(StatusCode::NO_CONTENT.into_response());
    };
    match web::wanted(&headers, size) {
        Wanted::All => part(&image, file, 0..size).await,
        Wanted::Part(range) => {
            let shown = format!("bytes {}-{}/{size}", range.start, range.end - 1);
            let answer = part(&image, file, range).await?;
            let head = [(header::CONTENT_RANGE, shown)];
            Ok((StatusCode::PARTIAL_CONTENT, head, answer).into_response())
        }
        Wanted::Nothing => Err(Fault::new(
            StatusCode::RANGE_NOT_SATISFIABLE,
            format!("The range begins behind the image's {size} bytes"),
        )),
    }
}

/// An image in the state `saving`. Dropped without [`Saving::finish`], also because the client went away, the image is
/// `queued` again.
struct Saving {
    catalogue: Arc<Catalogue>,
    id: String,
}

impl Saving {
    fn begin(catalogue: &Arc<Catalogue>, id: String) -> Result<Self, Fault> {
        let events = ["image.update", "image.prepare"];
        catalogue.change(&id, &events, Image::begin_saving)?;
        Ok(Self { catalogue: Arc::clone(catalogue), id })
    }

    fn finish(&self, receipt: Receipt) -> Result<(), Fault> {
        let activate = |image: &mut Image| {
            image.status = Status::Active;
            image.size = Some(receipt.size);
            image.checksum = Some(receipt.checksum);
            image.hash = Some(receipt.hash);
            image.locations.push(receipt.location);
            Ok(())
        };
        match self.catalogue.change(&self.id, &UPLOADED, activate) {
            Ok(_) => Ok(()),
            Err(_gone) => Err(Fault::new(
                StatusCode::GONE,
                format!(
                    "Image {} could not be found after upload. The image may have been deleted \
                     during the upload, cleaning up the chunks uploaded.",
                    self.id
                ),
            )),
        }
    }
}

impl Drop for Saving {
    fn drop(&mut self) {
        let restore = |image: &mut Image| match image.status {
            Status::Saving => {
                image.status = Status::Queued;
                Ok(())
            }
            _ => Err(Fault::conflict("the upload has ended")),
        };
        // Refused when the upload was finished or the image deleted: then there is nothing to restore.
        let _ = self.catalogue.change(&self.id, &["image.update"], restore);
    }
}

async fn part(image: &Image, file: File, range: Range<u64>) -> Result<Response, Fault> {
    let mut head = HeaderMap::new();
    head.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/octet-stream"));
    head.insert(header::CONTENT_LENGTH, (range.end - range.start).into());
    if let Some(checksum) = image.checksum.as_ref().and_then(|md5| md5.parse().ok()) {
        head.insert("content-md5", checksum);
    }
    Ok((head, web::part_of(file, range).await?).into_response())
}

fn check_media_type(headers: &HeaderMap) -> Result<(), Fault> {
    let given = headers.get(header::CONTENT_TYPE).map_or(&b""[..], |value| value.as_bytes());
    if given == b"application/octet-stream" {
        return Ok(());
    }
    Err(Fault::unsupported("The bits of an image are application/octet-stream"))
}

/// The size that the client promises beside the length of the body.
fn announced_size(headers: &HeaderMap) -> Result<Option<u64>, Fault> {
    let Some(value) = headers.get("x-openstack-image-size") else {
        return Ok(None);
    };
    let size = value.to_str().ok().and_then(|value| value.parse().ok());
    size.map(Some).ok_or_else(|| Fault::bad_request("Invalid or missing image size in request headers."))
}
