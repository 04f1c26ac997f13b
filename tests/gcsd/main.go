// Command gcsd is fake-gcs-server with what the clients of this project need beside it:
//
//   - batch requests whose parts have no Content-ID, as google-cloud-storage sends them;
//   - writes through the XML API (PUT, multipart uploads, x-goog-if-generation-match), as obstore
//     sends them. They become uploads of the JSON API, which the server has, preconditions included.
//
// Objects live in memory. It prints one line, its address, when it listens.
package main

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"flag"
	"fmt"
	"io"
	"log"
	"mime"
	"mime/multipart"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/fsouza/fake-gcs-server/fakestorage"
)

func main() {
	address := flag.String("addr", "127.0.0.1:0", "host:port to listen on; port 0 takes a free one")
	bucket := flag.String("bucket", "bkt", "a bucket to start with")
	latency := flag.Duration("latency", 0, "how long every answer waits")
	rate := flag.Float64("rate", 0, "MB a second of all answers together, 0 for no limit")
	flag.Parse()
	listener, err := net.Listen("tcp", *address)
	if err != nil {
		log.Fatal(err)
	}
	bound := listener.Addr().String()
	fake, err := fakestorage.NewServerWithOptions(fakestorage.Options{
		NoListener: true, Scheme: "http", ExternalURL: "http://" + bound, PublicHost: bound, Writer: io.Discard,
	})
	if err != nil {
		log.Fatal(err)
	}
	fake.CreateBucketWithOpts(fakestorage.CreateBucketOpts{Name: *bucket})
	s := &server{next: fake.HTTPHandler(), uploads: map[string]*upload{}, latency: *latency, rate: *rate * 1e6}
	fmt.Println("http://" + bound)
	os.Stdout.Sync()
	log.Fatal(http.Serve(listener, s))
}

// upload is a multipart upload under way: parts by number.
type upload struct {
	bucket, name string
	parts        map[int][]byte
}

type server struct {
	next    http.Handler
	mutex   sync.Mutex
	uploads map[string]*upload
	latency time.Duration
	rate    float64
	free    time.Time // when all that was answered so far has left
}

// slowWriter lets bytes go at the server's rate.
type slowWriter struct {
	http.ResponseWriter
	server *server
}

func (w slowWriter) Write(data []byte) (int, error) {
	s := w.server
	s.mutex.Lock()
	if now := time.Now(); s.free.Before(now) {
		s.free = now
	}
	s.free = s.free.Add(time.Duration(float64(len(data)) / s.rate * 1e9))
	wait := time.Until(s.free)
	s.mutex.Unlock()
	time.Sleep(wait)
	return w.ResponseWriter.Write(data)
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	time.Sleep(s.latency)
	if s.rate > 0 {
		w = slowWriter{w, s}
	}
	if r.URL.Path == "/batch/storage/v1" {
		nameBatchParts(r)
	}
	bucket, name, isXML := xmlObject(r)
	if !isXML {
		s.next.ServeHTTP(w, r)
		return
	}
	query := r.URL.Query()
	switch {
	case r.Method == http.MethodPost && query.Has("uploads"):
		s.startUpload(w, bucket, name)
	case r.Method == http.MethodPut && query.Has("uploadId"):
		s.takePart(w, r, query)
	case r.Method == http.MethodPost && query.Has("uploadId"):
		s.completeUpload(w, r, query.Get("uploadId"))
	case r.Method == http.MethodDelete && query.Has("uploadId"):
		s.mutex.Lock()
		delete(s.uploads, query.Get("uploadId"))
		s.mutex.Unlock()
		w.WriteHeader(http.StatusNoContent)
	case r.Method == http.MethodPut:
		s.insert(w, r, bucket, name, r.Body)
	default:
		s.next.ServeHTTP(w, r)
	}
}

// xmlObject tells the XML API's /bucket/object from all paths that the server itself knows.
func xmlObject(r *http.Request) (bucket, name string, ok bool) {
	bucket, name, ok = strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	for _, own := range []string{"storage", "upload", "download", "batch", "b", "_internal"} {
		ok = ok && bucket != own
	}
	return bucket, name, ok && name != ""
}

// insert sends an object on as an upload of the JSON API and answers as the XML API does.
func (s *server) insert(w http.ResponseWriter, r *http.Request, bucket, name string, body io.Reader) bool {
	query := url.Values{"uploadType": {"media"}, "name": {name}}
	if generation := r.Header.Get("X-Goog-If-Generation-Match"); generation != "" {
		query.Set("ifGenerationMatch", generation)
	}
	target := "http://" + r.Host + "/upload/storage/v1/b/" + url.PathEscape(bucket) + "/o?" + query.Encode()
	request, err := http.NewRequestWithContext(r.Context(), http.MethodPost, target, body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return false
	}
	request.RequestURI = request.URL.RequestURI()
	request.Header.Set("Content-Type", "application/octet-stream")
	answer := httptest.NewRecorder()
	s.next.ServeHTTP(answer, request)
	if answer.Code != http.StatusOK {
		w.WriteHeader(answer.Code)
		w.Write(answer.Body.Bytes())
		return false
	}
	var made struct{ Etag, Generation string }
	json.Unmarshal(answer.Body.Bytes(), &made)
	w.Header().Set("ETag", made.Etag)
	w.Header().Set("X-Goog-Generation", made.Generation)
	return true
}

func (s *server) startUpload(w http.ResponseWriter, bucket, name string) {
	random := make([]byte, 16)
	rand.Read(random)
	id := hex.EncodeToString(random)
	s.mutex.Lock()
	s.uploads[id] = &upload{bucket: bucket, name: name, parts: map[int][]byte{}}
	s.mutex.Unlock()
	xml.NewEncoder(w).Encode(struct {
		XMLName               xml.Name `xml:"InitiateMultipartUploadResult"`
		Bucket, Key, UploadId string
	}{Bucket: bucket, Key: name, UploadId: id})
}

func (s *server) takePart(w http.ResponseWriter, r *http.Request, query url.Values) {
	number, _ := strconv.Atoi(query.Get("partNumber"))
	data, err := io.ReadAll(r.Body)
	s.mutex.Lock()
	defer s.mutex.Unlock()
	up := s.uploads[query.Get("uploadId")]
	if err != nil || up == nil {
		http.Error(w, "NoSuchUpload", http.StatusNotFound)
		return
	}
	up.parts[number] = data
	w.Header().Set("ETag", fmt.Sprintf("\"part-%d\"", number))
}

func (s *server) completeUpload(w http.ResponseWriter, r *http.Request, id string) {
	var wanted struct {
		Part []struct{ PartNumber int }
	}
	xml.NewDecoder(r.Body).Decode(&wanted)
	s.mutex.Lock()
	up := s.uploads[id]
	delete(s.uploads, id)
	s.mutex.Unlock()
	if up == nil {
		http.Error(w, "NoSuchUpload", http.StatusNotFound)
		return
	}
	var whole bytes.Buffer
	for _, part := range wanted.Part {
		whole.Write(up.parts[part.PartNumber])
	}
	if s.insert(w, r, up.bucket, up.name, &whole) {
		xml.NewEncoder(w).Encode(struct {
			XMLName           xml.Name `xml:"CompleteMultipartUploadResult"`
			Bucket, Key, ETag string
		}{Bucket: up.bucket, Key: up.name, ETag: w.Header().Get("ETag")})
	}
}

// nameBatchParts gives every part of a batch request the Content-ID that the server asks for.
func nameBatchParts(r *http.Request) {
	_, parameters, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	reader := multipart.NewReader(r.Body, parameters["boundary"])
	var body bytes.Buffer
	writer := multipart.NewWriter(&body)
	for i := 0; ; i++ {
		part, err := reader.NextRawPart()
		if err != nil {
			break
		}
		if part.Header.Get("Content-ID") == "" {
			part.Header.Set("Content-ID", "<b+"+strconv.Itoa(i)+">")
		}
		target, _ := writer.CreatePart(part.Header)
		io.Copy(target, part)
	}
	writer.Close()
	r.Body, r.ContentLength = io.NopCloser(&body), int64(body.Len())
	r.Header.Set("Content-Type", "multipart/mixed; boundary="+writer.Boundary())
}
