// Command device-plugin offers made-up NVIDIA GPUs to a real kubelet, through the kubelet's own device plug-in API.
//
// In: device identifiers and the kubelet's plug-in folder. Out: pods that ask for nvidia.com/gpu get the identifiers
// of theirs in NVIDIA_VISIBLE_DEVICES, as NVIDIA's plug-in would set it.
package main

import (
	"context"
	"flag"
	"log"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	api "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
)

const (
	resource = "nvidia.com/gpu"
	// socket is the plug-in's, in the folder of the kubelet's.
	socket = "lab-gpu.sock"
	// glance is how often the kubelet's socket is looked at; a new one means a new kubelet.
	glance = 200 * time.Millisecond
)

func main() {
	folder := flag.String("folder", "", "the kubelet's folder for device plug-ins")
	devices := flag.String("devices", "", "identifiers of the devices, separated by commas")
	flag.Parse()

	// A kubelet that starts empties the folder, so the plug-in serves anew for each one.
	for {
		kubelet := waitForKubelet(*folder)
		if err := serve(*folder, strings.Split(*devices, ","), kubelet); err != nil {
			log.Printf("starting over: %v", err)
			time.Sleep(glance)
		}
	}
}

func kubeletSocket(folder string) string {
	return filepath.Join(folder, filepath.Base(api.KubeletSocket))
}

func waitForKubelet(folder string) os.FileInfo {
	for {
		if info, err := os.Stat(kubeletSocket(folder)); err == nil {
			return info
		}
		time.Sleep(glance)
	}
}

// serve registers with the kubelet whose socket was seen and returns when that kubelet has gone.
func serve(folder string, devices []string, kubelet os.FileInfo) error {
	path := filepath.Join(folder, socket)
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		return err
	}
	listener, err := net.Listen("unix", path)
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	api.RegisterDevicePluginServer(server, &plugin{devices: devices})
	go server.Serve(listener)
	defer server.Stop()

	if err := register(folder); err != nil {
		return err
	}
	log.Printf("registered %d devices", len(devices))
	for {
		time.Sleep(glance)
		now, err := os.Stat(kubeletSocket(folder))
		if err != nil || !os.SameFile(now, kubelet) {
			log.Print("the kubelet has gone or was replaced")
			return nil
		}
		if _, err := os.Stat(path); err != nil {
			return err
		}
	}
}

func register(folder string) error {
	connection, err := grpc.NewClient("unix://"+kubeletSocket(folder), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer connection.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	_, err = api.NewRegistrationClient(connection).Register(ctx, &api.RegisterRequest{
		Version:      api.Version,
		Endpoint:     socket,
		ResourceName: resource,
		Options:      &api.DevicePluginOptions{},
	})
	return err
}

type plugin struct {
	api.UnimplementedDevicePluginServer
	devices []string
}

func (*plugin) GetDevicePluginOptions(context.Context, *api.Empty) (*api.DevicePluginOptions, error) {
	return &api.DevicePluginOptions{}, nil
}

// ListAndWatch tells of the devices once: they never change and never fall ill.
func (p *plugin) ListAndWatch(_ *api.Empty, stream api.DevicePlugin_ListAndWatchServer) error {
	list := &api.ListAndWatchResponse{}
	for _, id := range p.devices {
		list.Devices = append(list.Devices, &api.Device{ID: id, Health: api.Healthy})
	}
	if err := stream.Send(list); err != nil {
		return err
	}
	<-stream.Context().Done()
	return nil
}

func (*plugin) Allocate(_ context.Context, request *api.AllocateRequest) (*api.AllocateResponse, error) {
	response := &api.AllocateResponse{}
	for _, container := range request.ContainerRequests {
		response.ContainerResponses = append(response.ContainerResponses, &api.ContainerAllocateResponse{
			Envs: map[string]string{"NVIDIA_VISIBLE_DEVICES": strings.Join(container.DevicesIds, ",")},
		})
	}
	return response, nil
}
